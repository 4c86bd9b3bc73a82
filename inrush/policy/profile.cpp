#include "inrush/policy/profile.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <thread>

#include "inrush/base/environment.h"
#include "inrush/base/fd.h"
#include "inrush/base/json.h"
#include "inrush/base/small_file.h"
#include "inrush/core/quoted.h"

namespace inrush {

namespace {

constexpr uint64_t kSchema = 1;
constexpr size_t kLongestKey = 256;
constexpr double kMostRate = 1e13;  // bytes a second; more is not a measurement
constexpr uint32_t kMostUnits = 4096;
// So much weight the past has against one more load.
constexpr uint32_t kPast = 3;
// A writer that does not get the lock within this gives up: it only loses a guess.
constexpr int kLockTries = 1000;
constexpr auto kLockPause = std::chrono::milliseconds(1);

// Mount sources may hold any byte; what is kept is printable ASCII.
std::string key_of(const std::string& path, const std::string& way, const char* state) {
  std::string key = fmt::format("{}|{}|{}", path, way, state).substr(0, kLongestKey);
  std::replace_if(
      key.begin(), key.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return key;
}

bool is_plausible(const PathRate& rate) {
  return std::isfinite(rate.bytes_per_second) && rate.bytes_per_second > 0 &&
         rate.bytes_per_second < kMostRate && rate.depth <= kMostUnits &&
         rate.streams <= kMostUnits && rate.loads > 0;
}

void average(std::map<std::string, PathRate>& rates, const std::string& key, const PathRate& seen) {
  if (!is_plausible(seen)) return;
  PathRate& known = rates[key];
  const double past = std::min(known.loads, kPast);
  const double fresh = seen.loads;
  known.bytes_per_second =
      (known.bytes_per_second * past + seen.bytes_per_second * fresh) / (past + fresh);
  known.depth = seen.depth;
  known.streams = seen.streams;
  known.loads =
      static_cast<uint32_t>(std::min<uint64_t>(uint64_t{known.loads} + seen.loads, UINT32_MAX));
  known.learnt_at = std::max(known.learnt_at, seen.learnt_at);
}

void forget_the_oldest(std::map<std::string, PathRate>& rates) {
  while (rates.size() > Profile::kMostRates) {
    rates.erase(std::min_element(rates.begin(), rates.end(), [](const auto& a, const auto& b) {
      return a.second.learnt_at < b.second.learnt_at;
    }));
  }
}

PathRate read_rate(JsonReader& reader) {
  PathRate rate;
  const auto small = [&] {
    return static_cast<uint32_t>(std::min<uint64_t>(reader.unsigned_integer(), UINT32_MAX));
  };
  reader.enter_object();
  for (std::string_view name; reader.next_field(name);) {
    if (name == "bytes_per_second") {
      rate.bytes_per_second = static_cast<double>(reader.unsigned_integer());
    } else if (name == "depth") {
      rate.depth = small();
    } else if (name == "streams") {
      rate.streams = small();
    } else if (name == "loads") {
      rate.loads = small();
    } else if (name == "learnt_at") {
      rate.learnt_at = static_cast<int64_t>(reader.unsigned_integer() & INT64_MAX);
    } else {
      reader.skip();
    }
  }
  return rate;
}

void read_rates(JsonReader& reader, Profile& profile) {
  reader.enter_object();
  for (std::string_view key; reader.next_field(key);) {
    const std::string kept(key.substr(0, kLongestKey));
    const PathRate rate = read_rate(reader);
    if (is_plausible(rate)) profile.rates[kept] = rate;
    forget_the_oldest(profile.rates);
  }
}

void make_folders(const std::string& path) {
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    ::mkdir(path.substr(0, at).c_str(), 0700);
  }
}

bool write_whole(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// Not synced: after a crash an empty file is as good as none.
void replace_file(const std::string& path, const std::string& text) {
  std::string temporary = path + ".XXXXXX";
  const Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return;
  if (!write_whole(fd.get(), text) || ::rename(temporary.c_str(), path.c_str()) != 0) {
    ::unlink(temporary.c_str());
  }
}

// Held until it is closed, or the process ends in whatever way.
Fd lock_beside(const std::string& path) {
  Fd fd(::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  for (int tries = 0; fd && tries < kLockTries; ++tries) {
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
    std::this_thread::sleep_for(kLockPause);
  }
  return {};
}

}  // namespace

const PathRate* Profile::find(const std::string& path, const std::string& way,
                              const char* state) const {
  const auto found = rates.find(key_of(path, way, state));
  return found == rates.end() ? nullptr : &found->second;
}

void Profile::learn(const std::string& path, const std::string& way, const PathRate& seen,
                    const char* state) {
  PathRate now = seen;
  now.loads = std::max(now.loads, 1U);
  if (now.learnt_at == 0) now.learnt_at = ::time(nullptr);
  average(rates, key_of(path, way, state), now);
  forget_the_oldest(rates);
}

void Profile::merge(const Profile& other) {
  for (const auto& [key, seen] : other.rates) average(rates, key, seen);
  forget_the_oldest(rates);
}

std::string to_json(const Profile& profile) {
  std::string rates;
  for (const auto& [key, rate] : profile.rates) {
    rates += fmt::format(
        "{}\n{}:{{\"bytes_per_second\":{:.0f},\"depth\":{},\"streams\":{},\"loads\":{},"
        "\"learnt_at\":{}}}",
        rates.empty() ? "" : ",", json_string(key), rate.bytes_per_second, rate.depth, rate.streams,
        rate.loads, rate.learnt_at);
  }
  return fmt::format("{{\"schema_version\":{},\"rates\":{{{}}}}}\n", kSchema, rates);
}

Profile parse_profile(std::string_view text) {
  Profile profile;
  uint64_t schema = 0;
  try {
    const JsonText json(text);
    JsonReader reader(json);
    reader.enter_object();
    for (std::string_view name; reader.next_field(name);) {
      if (name == "schema_version") {
        schema = reader.unsigned_integer();
        if (schema != kSchema) break;
      } else if (name == "rates" && schema == kSchema) {
        read_rates(reader, profile);
      } else {
        reader.skip();
      }
    }
    if (schema == kSchema) reader.finish();
  } catch (const JsonFault& fault) {
    throw Error(ErrorCode::data,
                fmt::format("the profile, byte {}: {}", fault.offset, fault.reason));
  }
  if (schema != kSchema) {
    throw Error(ErrorCode::usage,
                fmt::format("the profile has schema {}, this is {}", schema, kSchema));
  }
  return profile;
}

Profile load_profile() {
  const std::string path = profile_path(read_environment());
  if (path.empty()) return {};
  try {
    return parse_profile(read_small_file(path));
  } catch (const Error&) {
    return {};  // what is broken teaches nothing
  }
}

ProfileProblem profile_problem() {
  constexpr const char* kNotKept = "nothing learnt is kept";
  constexpr const char* kElsewhere = "INRUSH_PROFILE=FILE names a place for it (off: none)";
  const Environment environment = read_environment();
  const std::string path = profile_path(environment);
  if (path.empty()) {
    if (!environment.profile.empty()) return {};
    return {"no HOME, XDG_CACHE_HOME or INRUSH_PROFILE says where", kNotKept, kElsewhere};
  }
  // The nearest folder that is there: others are made when they are needed.
  std::string folder = path.substr(0, path.rfind('/') + 1);
  while (folder.size() > 1 && ::access(folder.c_str(), F_OK) != 0 && errno == ENOENT) {
    folder.pop_back();
    folder.resize(folder.rfind('/') + 1);
  }
  if (::access(folder.empty() ? "." : folder.c_str(), W_OK) != 0) {
    return {system_error(ErrorCode::source, "write in " + folder, errno).message(), kNotKept,
            kElsewhere};
  }
  const std::string text = read_small_file(path);
  try {
    if (!text.empty()) parse_profile(text);
  } catch (const Error& error) {
    const std::string why = path + ": " + error.message();
    if (error.code() == ErrorCode::usage) {
      return {why, kNotKept,
              "another version of Inrush uses it too; INRUSH_PROFILE=FILE names another"};
    }
    return {why, "nothing it taught is known; the next large load begins it anew",
            fmt::format("rm {}, or leave it: it will be replaced", quoted(path))};
  }
  return {};
}

void save_profile(const Profile& learnt) noexcept {
  try {
    const std::string path = profile_path(read_environment());
    if (path.empty() || learnt.rates.empty()) return;
    make_folders(path);
    const Fd lock = lock_beside(path);
    if (!lock) return;
    Profile all;
    try {
      all = parse_profile(read_small_file(path));
    } catch (const Error& error) {
      // Another version's profile is left to it; a broken one is replaced.
      if (error.code() == ErrorCode::usage) return;
    }
    all.merge(learnt);
    replace_file(path, to_json(all));
  } catch (const std::exception&) {
    return;
  }
}

}  // namespace inrush
