#include "inrush/save/partial.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <string_view>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/base/filesystem.h"
#include "inrush/base/random.h"

namespace inrush {
namespace {

constexpr size_t kLongestName = 255;  // NAME_MAX of every filesystem in use
constexpr size_t kDigits = 16;
constexpr std::string_view kEnd = ".inrush-partial";
constexpr int kMostEntries = 100'000;  // that a folder is looked through for

// All of a partial name but its digits and its end.
std::string beginning(const std::string& name) {
  if (name.empty()) return ".";
  return "." + name.substr(0, kLongestName - 2 - kDigits - kEnd.size()) + ".";
}

// Whether all who can be at its files see a lock on them: not where other machines have them too.
bool has_own_locks(int fd) {
  const FilesystemKind kind = filesystem_of(fd);
  return kind.may_map || kind.memory;
}

bool is_partial_of(const std::string& start, std::string_view entry) {
  if (entry.size() != start.size() + kDigits + kEnd.size() || !entry.starts_with(start) ||
      !entry.ends_with(kEnd)) {
    return false;
  }
  const std::string_view digits = entry.substr(start.size(), kDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::vector<std::string> entries_of(int folder) {
  std::vector<std::string> names;
  Fd again(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> list(again ? ::fdopendir(again.get()) : nullptr,
                                                 &::closedir);
  if (!list) return names;
  again.release();
  const dirent* entry = nullptr;
  for (int i = 0; i < kMostEntries && (entry = ::readdir(list.get())) != nullptr; ++i) {
    names.emplace_back(entry->d_name);
  }
  return names;
}

void remove_unheld(int folder, const std::string& name, bool is_folder) {
  const int kind = is_folder ? O_DIRECTORY : O_NONBLOCK;  // a pipe of that name must not stop us
  const Fd fd(::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | kind));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return;
  if (!is_folder && !S_ISREG(status.st_mode)) return;
  // Held until the name is gone: whoever has just made it sees that, and makes another.
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return;
  if (is_folder) {
    for (const std::string& file : entries_of(fd.get())) ::unlinkat(fd.get(), file.c_str(), 0);
  }
  ::unlinkat(folder, name.c_str(), is_folder ? AT_REMOVEDIR : 0);
}

}  // namespace

std::string partial_name(const std::string& name) {
  return fmt::format("{}{:016x}{}", beginning(name), random_bits(), kEnd);
}

bool hold_partial(int fd) {
  if (!has_own_locks(fd)) return true;
  // Where there are no locks, nobody can take one to remove it either.
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return errno != EWOULDBLOCK;
  struct stat status {};
  return ::fstat(fd, &status) != 0 || status.st_nlink > 0;
}

void remove_stale_partials(int folder, const std::string& name) noexcept try {
  if (!has_own_locks(folder)) return;
  const std::string start = beginning(name);
  for (const std::string& entry : entries_of(folder)) {
    if (is_partial_of(start, entry)) remove_unheld(folder, entry, name.empty());
  }
} catch (const std::exception&) {
  // No memory for the list: what is stale stays.
}

}  // namespace inrush
