//   DIR/<checkpoint>/uri                        what it is a copy of; its time is when it was used
//   DIR/<checkpoint>/<name>-<version>.bytes     CopyNames::bytes
//   DIR/<checkpoint>/<name>-<version>.ledger
//   DIR/<checkpoint>/<name>-<version>.lock
#include "inrush/base/cache_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/core/error.h"
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

// Of the same blob, where nobody fills them.
void remove_old_versions(int folder, const std::string& base) {
  const std::string prefix = base.substr(0, base.find('-') + 1);
  for (const std::string& other : names_in(folder)) {
    const std::string version = other.substr(0, other.rfind('.'));
    if (!other.ends_with(".lock") || !version.starts_with(prefix) || version == base) continue;
    const Fd lock(::openat(folder, other.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    if (!lock || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) continue;
    for (const char* ending : {".ledger", ".bytes", ".lock"}) {
      ::unlinkat(folder, (version + ending).c_str(), 0);
    }
  }
}

class PrivateFolder final : public CacheFolder {
 public:
  PrivateFolder(std::shared_ptr<const Fd> root, Fd folder, std::string key, uint64_t most)
      : root_(std::move(root)), folder_(std::move(folder)), key_(std::move(key)), most_(most) {
    writable_ = ::faccessat(root_->get(), ".", W_OK, AT_EACCESS) == 0;
  }

  [[nodiscard]] int fd() const override { return folder_.get(); }
  [[nodiscard]] bool writable() const override { return writable_; }

  [[nodiscard]] std::optional<CopyNames> names(const Blob& blob) const override {
    if (!has_version(blob)) return std::nullopt;
    const Identity& identity = blob.identity;
    const std::string version =
        fmt::format("{} {} {}", identity.size, identity.mtime_ns, identity.etag);
    // A name has no line break in it.
    const std::string which = blob.apart.empty() ? blob.name : blob.name + "\n" + blob.apart;
    const std::string base = short_digest(which) + "-" + short_digest(version);
    CopyNames names;
    names.title = blob.name;
    names.bytes = base + ".bytes";
    names.ledger = base + ".ledger";
    names.lock = base + ".lock";
    return names;
  }

  [[nodiscard]] bool prepare(const CopyNames& names, uint64_t missing) const override {
    const bool room = missing == 0 || make_room(missing);
    remove_old_versions(folder_.get(), names.bytes.substr(0, names.bytes.rfind('.')));
    return room;
  }

  void publish(const Blob& /*blob*/, const CopyNames& /*names*/) const override {}

 private:
  // Removes checkpoints that were not used for longest and that nobody fills, until so many bytes
  // more fit; false where they do not.
  [[nodiscard]] bool make_room(uint64_t bytes) const;

  std::shared_ptr<const Fd> root_;
  Fd folder_;
  std::string key_;
  bool writable_ = false;
  uint64_t most_ = 0;
};

bool PrivateFolder::make_room(uint64_t bytes) const {
  if (most_ == 0) return true;
  std::vector<Stored> all;
  uint64_t total = bytes;
  for (const std::string& key : names_in(root_->get())) {
    all.push_back(measure(root_->get(), key));
    total += all.back().bytes;
  }
  std::sort(all.begin(), all.end(), [](const Stored& a, const Stored& b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) < std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  for (const Stored& oldest : all) {
    if (total <= most_) break;
    if (oldest.key == key_ || !remove_checkpoint(root_->get(), oldest.key)) continue;
    total -= oldest.bytes;
  }
  return total <= most_;
}

}  // namespace

bool has_version(const Blob& blob) {
  return !blob.identity.etag.empty() || blob.identity.mtime_ns != 0;
}

std::string short_digest(const std::string& text) {
  Sha256 sum;
  sum.add(text);
  return sum.finish().substr(0, 16);
}

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

CacheRoot::CacheRoot(std::string dir, uint64_t most) : dir_(std::move(dir)), most_(most) {
  Fd root(::open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root && errno == ENOENT) {
    make_folders(dir_);
    root = Fd(::open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  if (!root) throw system_error(ErrorCode::source, "open the cache folder " + dir_, errno);
  check_owner(root.get(), dir_);
  fd_ = std::make_shared<const Fd>(std::move(root));
}

std::shared_ptr<CacheFolder> CacheRoot::folder_of(const std::string& uri) const {
  Sha256 sum;
  sum.add(uri);
  const std::string key = sum.finish().substr(0, 32);
  ::mkdirat(fd_->get(), key.c_str(), 0700);
  Fd folder(::openat(fd_->get(), key.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return nullptr;
  check_owner(folder.get(), dir_ + "/" + key);
  auto made = std::make_shared<PrivateFolder>(fd_, std::move(folder), key, most_);
  if (!made->writable()) return made;
  const Fd note(
      ::openat(made->fd(), "uri", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (note) [[maybe_unused]]
    const ssize_t ignored = ::write(note.get(), uri.data(), uri.size());
  return made;
}

}  // namespace inrush
