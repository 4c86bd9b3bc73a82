// What paths have taught: rates per filesystem and way, kept in one small file, a first guess only.
// Keyed by filesystem UUID or host, never by a device number. Safe with many writers (a lock beside
// the file, a temporary and a rename), with a corrupt or unwritable file, with no HOME.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace inrush {

struct PathRate {
  double bytes_per_second = 0;  // moving average over loads of at least 64 MiB
  uint32_t depth = 0;           // what the governor settled on
  uint32_t streams = 0;
  uint32_t loads = 0;     // how many taught it
  int64_t learnt_at = 0;  // seconds since 1970, of the latest of them
};

struct Profile {
  static constexpr size_t kMostRates = 256;  // beyond it the longest unheard of are forgotten
  static constexpr const char* kCold = "cold";
  static constexpr const char* kWarm = "warm";

  std::map<std::string, PathRate> rates;  // "<path>|<choice name>|<cold or warm>"

  // `path`: a filesystem's id; of warm bytes also what device they went to.
  [[nodiscard]] const PathRate* find(const std::string& path, const std::string& way,
                                     const char* state = kCold) const;
  // Averages what one load (or several) saw into what is known.
  void learn(const std::string& path, const std::string& way, const PathRate& seen,
             const char* state = kCold);
  // The same with everything another profile knows.
  void merge(const Profile& other);
};

// From INRUSH_PROFILE, else the user's cache folder; empty when there is none or it is unreadable.
Profile load_profile();

// Merges what was learnt into the file. Never throws: a profile that cannot be kept is no error.
void save_profile(const Profile& learnt) noexcept;

// Why what is learnt cannot be read or kept, what becomes of it then, and what to change. All
// empty: it can, or nobody wants it kept.
struct ProfileProblem {
  std::string why;
  std::string instead;
  std::string change;
};
ProfileProblem profile_problem();

std::string to_json(const Profile& profile);

// Throws Error{data} for what is no profile, Error{usage} for one of another schema.
Profile parse_profile(std::string_view text);

}  // namespace inrush
