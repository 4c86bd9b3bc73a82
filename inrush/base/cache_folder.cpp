#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "inrush/base/cache_file.h"
#include "inrush/core/sha256.h"

namespace inrush {
namespace {

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

// mkdir -p, private.
void make_folders(const std::string& path) {
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    ::mkdir(path.substr(0, at).c_str(), 0700);
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    throw system_error(ErrorCode::source, "make the cache folder " + path, errno);
  }
}

bool on_read_only_volume(int fd) {
  struct statvfs volume {};
  return ::fstatvfs(fd, &volume) == 0 && (volume.f_flag & ST_RDONLY) != 0;
}

// Bytes that come out of it are believed: nobody else may have put them there.
void check_owner(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw system_error(ErrorCode::source, "stat " + path, errno);
  if (on_read_only_volume(fd)) return;
  if (status.st_uid != ::geteuid() && status.st_uid != 0) {
    throw Error(ErrorCode::usage,
                fmt::format("cache folder {}: it belongs to user {}, not to {}, who would have to "
                            "believe what is in it",
                            path, status.st_uid, ::geteuid()));
  }
  if ((status.st_mode & 022) != 0) {
    throw Error(ErrorCode::usage,
                fmt::format("cache folder {}: others may write to it (chmod 700 {})", path, path));
  }
}

struct Stored {
  std::string key;
  uint64_t bytes = 0;
  timespec used{};
};

Stored measure(int root, const std::string& key) {
  Stored stored{.key = key};
  const Fd folder(::openat(root, key.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return stored;
  for (const std::string& name : names_in(folder.get())) {
    struct stat status {};
    if (::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    stored.bytes += static_cast<uint64_t>(status.st_blocks) * 512;
    if (name == "uri") stored.used = status.st_mtim;
  }
  return stored;
}

// False where somebody fills one of its files.
bool remove_checkpoint(int root, const std::string& key) {
  const Fd folder(::openat(root, key.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return false;
  std::vector<Fd> locks;
  bool busy = false;
  const std::vector<std::string> names = names_in(folder.get());
  for (const std::string& name : names) {
    if (!name.ends_with(".lock")) continue;
    locks.emplace_back(::openat(folder.get(), name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    busy |= !locks.back() || ::flock(locks.back().get(), LOCK_EX | LOCK_NB) != 0;
  }
  if (busy) return false;
  for (const std::string& name : names) ::unlinkat(folder.get(), name.c_str(), 0);
  ::unlinkat(root, key.c_str(), AT_REMOVEDIR);
  return true;
}

}  // namespace

std::vector<std::string> names_in(int folder) {
  std::vector<std::string> names;
  const int again = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseFolder> entries(again < 0 ? nullptr : ::fdopendir(again));
  if (!entries && again >= 0) ::close(again);
  if (!entries) return names;
  while (const dirent* entry = ::readdir(entries.get())) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  return names;
}

std::shared_ptr<CacheFolder> CacheFolder::open(const std::string& dir, const std::string& uri,
                                               uint64_t most) {
  auto made = std::make_shared<CacheFolder>();
  made->most_ = most;
  made->root_ = Fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!made->root_ && errno == ENOENT) {
    make_folders(dir);
    made->root_ = Fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  if (!made->root_) throw system_error(ErrorCode::source, "open the cache folder " + dir, errno);
  check_owner(made->root_.get(), dir);
  made->writable_ = ::faccessat(made->root_.get(), ".", W_OK, AT_EACCESS) == 0;
  Sha256 sum;
  sum.add(uri);
  made->key_ = sum.finish().substr(0, 32);
  const char* const key = made->key_.c_str();
  if (made->writable_) ::mkdirat(made->root_.get(), key, 0700);
  made->folder_ =
      Fd(::openat(made->root_.get(), key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made->folder_) return nullptr;
  check_owner(made->folder_.get(), dir + "/" + key);
  if (!made->writable_) return made;
  const Fd note(::openat(made->folder_.get(), "uri",
                         O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (note) [[maybe_unused]]
    const ssize_t ignored = ::write(note.get(), uri.data(), uri.size());
  return made;
}

bool CacheFolder::make_room(uint64_t bytes) const {
  if (most_ == 0) return true;
  std::vector<Stored> all;
  uint64_t total = bytes;
  for (const std::string& key : names_in(root_.get())) {
    all.push_back(measure(root_.get(), key));
    total += all.back().bytes;
  }
  std::sort(all.begin(), all.end(), [](const Stored& a, const Stored& b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) < std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  for (const Stored& oldest : all) {
    if (total <= most_) break;
    if (oldest.key == key_ || !remove_checkpoint(root_.get(), oldest.key)) continue;
    total -= oldest.bytes;
  }
  return total <= most_;
}

}  // namespace inrush
