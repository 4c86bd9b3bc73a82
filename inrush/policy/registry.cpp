#include "inrush/policy/registry.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <functional>
#include <set>
#include <string_view>
#include <vector>

#include "inrush/base/environment.h"
#include "inrush/base/fd.h"
#include "inrush/base/small_file.h"
#include "inrush/base/text.h"
#include "inrush/core/sha256.h"

namespace inrush {

namespace {

constexpr time_t kRecent = 3600;  // seconds
constexpr time_t kSweepEvery = 600;
constexpr int kAttempts = 10;  // to enter a folder that a sweep may remove meanwhile
// Temporary names older than this were left by a crash between two system calls.
constexpr time_t kForgotten = 60;

// "<key>/<process>.<number>" with a lock on it while a load runs, ".unlocked-..." until it has its
// lock; "<key>/seen", whose mtime is the last load's beginning. A folder for each key, so that
// looking around costs what happens to these blobs, however many others the hour has seen.
// "swept" beside the keys: when the old ones were last removed.
constexpr std::string_view kUnlocked = ".unlocked-";
constexpr const char* kSeen = "seen";
constexpr const char* kSwept = "swept";

std::string key_of(std::span<const Blob> blobs) {
  std::vector<std::string> each;
  for (const Blob& blob : blobs) {
    const Identity& id = blob.identity;
    each.push_back(fmt::format("{} {} {} {} {}", id.device, id.inode, id.size, id.mtime_ns,
                               id.inode == 0 ? blob.name + id.etag : id.etag));
  }
  std::sort(each.begin(), each.end());
  Sha256 hash;
  for (const std::string& one : each) hash.add(one + "\n");
  return hash.finish().substr(0, 32);
}

// The process, so that a number used again is another one: its id and when it started.
std::string own_process() {
  const std::string stat = read_small_file("/proc/self/stat");
  const size_t name_end = stat.rfind(')');
  std::string started = "0";
  if (name_end != std::string::npos) {
    const auto fields = fields_of(std::string_view(stat).substr(name_end + 1));
    if (fields.size() > 19) started = fields[19];
  }
  return fmt::format("{}-{}", ::getpid(), started);
}

// A folder that nobody but this user can write to or has planted: not a link, ours, and closed.
Fd open_private(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return {};
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return {};
  const bool closed = status.st_uid == ::geteuid() && (status.st_mode & 077) == 0;
  return closed && ::faccessat(fd.get(), ".", W_OK, AT_EACCESS) == 0 ? std::move(fd) : Fd();
}

// A record lock on the whole file. Such locks are the process's own: a forked child does not
// share them, and asking about one does not take it.
struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

bool is_locked_by_another(int folder, const char* name) {
  const Fd fd(::openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return false;
  struct flock lock = whole_file(F_RDLCK);
  return ::fcntl(fd.get(), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

time_t modified(int folder, const char* name) {
  struct stat status {};
  return ::fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_mtim.tv_sec : 0;
}

bool is_older(int folder, const char* name, time_t seconds) {
  const time_t then = modified(folder, name);
  return then != 0 && then + seconds < ::time(nullptr);
}

// Whether that is there and was last written within the time, not in the future.
bool is_recent(int folder, const char* name, time_t seconds) {
  const time_t then = modified(folder, name);
  const time_t now = ::time(nullptr);
  return then != 0 && then <= now && now - then < seconds;
}

bool touch(int folder, const char* name) {
  const Fd marker(
      ::openat(folder, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  return marker && ::futimens(marker.get(), nullptr) == 0;
}

void each_entry(int folder, const std::function<void(const char*)>& visit) {
  const int again = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* entries = again < 0 ? nullptr : ::fdopendir(again);
  if (entries == nullptr) {
    if (again >= 0) ::close(again);
    return;
  }
  while (const dirent* entry = ::readdir(entries)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") visit(entry->d_name);
  }
  ::closedir(entries);
}

Fd open_key(int folder, const char* key) {
  return Fd(::openat(folder, key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

// How many other processes load a key's blobs; what dead ones left behind is removed.
size_t others_loading(int key_folder, std::string_view own) {
  std::set<std::string> processes;
  each_entry(key_folder, [&](const char* entry) {
    const std::string_view name = entry;
    if (name == kSeen) return;
    if (name.starts_with(kUnlocked)) {
      if (is_older(key_folder, entry, kForgotten)) ::unlinkat(key_folder, entry, 0);
      return;
    }
    const std::string process(name.substr(0, name.rfind('.')));
    // Files of this process are not even opened: closing one would drop its lock.
    if (process == own) return;
    if (is_locked_by_another(key_folder, entry)) {
      processes.insert(process);
    } else {
      ::unlinkat(key_folder, entry, 0);
    }
  });
  return processes.size();
}

// Removes the keys that nobody has loaded for an hour; those in use stay, for they are not empty.
void sweep(int folder, std::string_view own) {
  if (is_recent(folder, kSwept, kSweepEvery) || !touch(folder, kSwept)) return;
  each_entry(folder, [&](const char* key) {
    const Fd key_folder = open_key(folder, key);
    if (!key_folder || !is_older(key_folder.get(), ".", kForgotten) ||
        is_recent(key_folder.get(), kSeen, kRecent)) {
      return;
    }
    others_loading(key_folder.get(), own);
    ::unlinkat(key_folder.get(), kSeen, 0);
    ::unlinkat(folder, key, AT_REMOVEDIR);
  });
}

}  // namespace

struct Registration::State {
  Fd folder;  // of the key
  Fd file;    // holds the lock; closing it, or any other descriptor of this file, drops it
  std::string process;
  std::string name;
  pid_t pid = 0;
  bool loaded_recently = false;

  // Whether it is entered. Not so where a sweep removed the key's folder meanwhile.
  bool register_in(int registry, const std::string& key) {
    if (::mkdirat(registry, key.c_str(), 0700) != 0 && errno != EEXIST) return false;
    folder = open_key(registry, key.c_str());
    if (!folder) return false;
    look_back();
    return enter();
  }

  void look_back() {
    loaded_recently = is_recent(folder.get(), kSeen, kRecent);
    touch(folder.get(), kSeen);
  }

  // Locked first and named afterwards, so that nobody finds it unlocked and takes it for stale.
  bool enter() {
    const std::string number =
        fmt::format("{:x}", reinterpret_cast<uintptr_t>(this) ^ static_cast<uintptr_t>(clock_ns()));
    const std::string temporary = fmt::format("{}{}.{}", kUnlocked, process, number);
    file = Fd(::openat(folder.get(), temporary.c_str(),
                       O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return false;
    struct flock lock = whole_file(F_WRLCK);
    name = fmt::format("{}.{}", process, number);
    if (::fcntl(file.get(), F_SETLK, &lock) != 0 ||
        ::renameat(folder.get(), temporary.c_str(), folder.get(), name.c_str()) != 0) {
      ::unlinkat(folder.get(), temporary.c_str(), 0);
      name.clear();
    }
    return !name.empty();
  }

  static uint64_t clock_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }
};

std::string registry_folder() {
  const std::string own = fmt::format("inrush-{}", ::geteuid());
  std::vector<std::string> places = {"/dev/shm/" + own};
  const std::string runtime = read_environment().runtime_dir;
  if (runtime.starts_with('/')) places.push_back(runtime + "/inrush");
  places.push_back("/tmp/" + own);
  for (const std::string& place : places) {
    if (open_private(place)) return place;
  }
  return {};
}

Registration::Registration(std::span<const Blob> blobs, const std::string& folder) {
  if (blobs.empty()) return;
  try {
    const std::string place = folder.empty() ? registry_folder() : folder;
    auto state = std::make_unique<State>();
    const Fd registry = place.empty() ? Fd() : open_private(place);
    if (!registry) return;
    state->process = own_process();
    state->pid = ::getpid();
    sweep(registry.get(), state->process);
    const std::string key = key_of(blobs);
    bool entered = false;
    for (int attempt = 0; attempt < kAttempts && !entered; ++attempt) {
      entered = state->register_in(registry.get(), key);
    }
    if (state->folder) state_ = std::move(state);
  } catch (const std::exception&) {
    state_.reset();  // a load goes on without knowing its neighbours
  }
}

Registration::~Registration() {
  // In a forked child the file is still its parent's.
  if (state_ && !state_->name.empty() && state_->pid == ::getpid()) {
    ::unlinkat(state_->folder.get(), state_->name.c_str(), 0);
  }
}

Neighbours Registration::neighbours() const {
  Neighbours neighbours;
  if (!state_) return neighbours;
  neighbours.loaded_recently = state_->loaded_recently;
  neighbours.loading = static_cast<uint32_t>(others_loading(state_->folder.get(), state_->process));
  return neighbours;
}

}  // namespace inrush
