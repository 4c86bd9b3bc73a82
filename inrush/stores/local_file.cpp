#include "inrush/stores/local_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/aligned_bytes.h"
#include "inrush/base/cachestat.h"
#include "inrush/base/direct_io.h"
#include "inrush/base/read_fully.h"

namespace inrush {
namespace {

// Most headers are smaller.
constexpr off_t kHeaderBytes = 64 << 10;

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

struct stat status_of(int fd, const std::string& name) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw system_error(ErrorCode::source, "stat " + name, errno);
  return status;
}

Identity identity_from(const struct stat& status) {
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .size = static_cast<uint64_t>(status.st_size),
          .mtime_ns = nanoseconds(status.st_mtim),
          .ctime_ns = nanoseconds(status.st_ctim),
          .etag = {}};
}

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "no regular file";
}

// Whether its header is read around the page cache while it is cold. The few small pages that a
// header leaves there keep the kernel from filling the 2 MiB around them with huge ones: cold
// shards of 1 MiB then took nearly twice as long (64 MiB: 80 ms, and 45 ms). A filesystem straight
// on a block device has a device number of its own; what is far or in memory has none.
bool spares_cache(const Blob& blob) {
  return blob.size >= kMiB && major(blob.identity.device) != 0;
}

// False where it failed: reading through the page cache says why.
bool read_around_cache(const Blob& blob, uint64_t offset, std::span<std::byte> target) {
  const DirectIo direct = open_direct(blob.fd, blob.name);
  if (!direct.fd) return false;
  const uint64_t begin = align_down(offset, direct.offset_align);
  const uint64_t wanted = offset + target.size() - begin;
  const uint64_t size = align_up(wanted, direct.offset_align);
  const AlignedBytes memory =
      allocate_aligned(std::max(direct.memory_align, direct.offset_align), size);
  if (!memory) return false;
  const Read read{.offset = begin, .size = size, .required = wanted, .target = memory.get()};
  ReadProgress progress(read, {.size = blob.size, .align = direct.offset_align});
  if (!read_fully(direct.fd.get(), progress)) return false;
  std::memcpy(target.data(), memory.get() + (offset - begin), target.size());
  return true;
}

}  // namespace

void read_local_file(const Blob& blob, uint64_t offset, std::span<std::byte> target) {
  const bool cold = !target.empty() && spares_cache(blob) &&
                    cached_pages(blob.fd, offset, target.size()) == uint64_t{0};
  if (!cold || !read_around_cache(blob, offset, target)) {
    read_fully(blob.fd, offset, target, blob.name);
  }
}

Error open_error(const std::string& name, int error_number) {
  if (is_out_of_descriptors(error_number)) {
    return no_descriptor("open " + name, error_number, ", and each file of a checkpoint takes one");
  }
  if (error_number == EACCES) {
    return {ErrorCode::source,
            fmt::format("open {}: permission denied: it, or a folder above it, may not be read by "
                        "user {}",
                        name, ::geteuid())};
  }
  if (error_number == ELOOP) {
    return {ErrorCode::source,
            fmt::format("open {}: a symbolic link that leads back to itself", name)};
  }
  return system_error(ErrorCode::source, "open " + name, error_number);
}

Blob open_local_file(int at, const std::string& path, const std::string& name) {
  // Without O_NONBLOCK the open of a FIFO would wait for a writer; on regular files it means
  // nothing.
  Fd fd(::openat(at, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) {
    const int error_number = errno;
    struct stat link {};
    const bool dangling = error_number == ENOENT &&
                          ::fstatat(at, path.c_str(), &link, AT_SYMLINK_NOFOLLOW) == 0 &&
                          S_ISLNK(link.st_mode);
    if (dangling) {
      throw Error(ErrorCode::source,
                  fmt::format("open {}: a symbolic link to a file that is not there (a download "
                              "that was not finished, or was cleaned up?)",
                              name));
    }
    if (error_number == ENXIO) {  // a socket, or a device without a driver
      throw Error(ErrorCode::source, fmt::format("open {}: not a regular file", name));
    }
    throw open_error(name, error_number);
  }
  const struct stat status = status_of(fd.get(), name);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::source, fmt::format("open {}: {}, where a regular file was expected",
                                               name, kind_of(status.st_mode)));
  }
  Blob blob{.name = name,
            .size = static_cast<uint64_t>(status.st_size),
            .identity = identity_from(status),
            .fd = fd.get(),
            .handle = {}};
  // Engines may have to share this descriptor, and io_uring looks at the flag.
  ::fcntl(fd.get(), F_SETFL, 0);
  // The header is wanted next: where each read is a round trip, it comes in one.
  if (!spares_cache(blob)) ::posix_fadvise(fd.get(), 0, kHeaderBytes, POSIX_FADV_WILLNEED);
  blob.handle = std::make_shared<const Fd>(std::move(fd));
  return blob;
}

Identity identity_of(int fd, const std::string& name) { return identity_from(status_of(fd, name)); }

Identity identity_now(const Blob& blob) {
  const struct stat status = status_of(blob.fd, blob.name);
  const Identity now = identity_from(status);
  return status.st_nlink > 0 && same_bytes(blob.identity, now) ? blob.identity : now;
}

}  // namespace inrush
