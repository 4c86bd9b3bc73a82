// A local file that takes its name only when it is whole:
//
//   .NAME.<16 hex digits>.inrush-partial    beside it, while it is written
//   NAME                                    after fsync and rename
//
// A killed writer leaves at most the former, which the next one of NAME removes. A mapping of the
// old NAME keeps the old bytes.
//
// What must be durable goes past the page cache where it can, several parts in flight; the rest
// goes through it from one thread (docs/decisions/saving-past-the-page-cache.md).
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/direct_io.h"
#include "inrush/base/fd.h"
#include "inrush/base/filesystem.h"
#include "inrush/base/write_fully.h"
#include "inrush/core/error.h"
#include "inrush/save.h"
#include "inrush/save/partial.h"

namespace inrush {
namespace {

constexpr uint64_t kLeastDirect = 8 * kMiB;  // of a file: below it nothing is gained
constexpr unsigned kDirectWidth = 4;         // parts in flight, each of a thread
constexpr uint64_t kDirectPart = 2 * kMiB;

class FileWriter final : public Writer {
 public:
  FileWriter(const std::string& path, bool sync) : path_(path), sync_(sync) {
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    name_ = path.substr(slash + 1);
    if (name_.empty() || name_ == "." || name_ == ".." || path.find('\0') != std::string::npos) {
      throw Error(ErrorCode::usage, fmt::format("save {}: no name of a file", path));
    }
    folder_ = Fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder_) fail("open its folder", errno);
    if (::faccessat(folder_.get(), ".", W_OK | X_OK, AT_EACCESS) != 0) {
      fail("write into its folder", errno);
    }
    mode_of_existing();
  }

  ~FileWriter() override { abort(); }

  [[nodiscard]] WriterTraits traits() const override {
    WriterTraits traits;
    if (!direct_) return traits;
    traits.width = kDirectWidth;
    traits.best_part = kDirectPart;
    traits.memory_align = memory_align_;
    return traits;
  }

  void create(uint64_t size) override {
    if (fd_) throw Error(ErrorCode::usage, fmt::format("save {}: created twice", path_));
    remove_stale_partials(folder_.get(), name_);
    open_temporary(mode_of_existing());
    size_ = size;
    if (size > 0) reserve();
    if (sync_ && size >= kLeastDirect) try_direct();
  }

  void write(uint64_t offset, std::span<const std::byte> data) override {
    if (!fd_ || data.size() > size_ || offset > size_ - data.size()) {
      throw Error(ErrorCode::usage,
                  fmt::format("save {} [{}, +{}): outside of the {} bytes created", path_, offset,
                              data.size(), size_));
    }
    const uint64_t size = data.size();
    if (goes_direct(offset, data) && write_direct(offset, data)) {
      written_ += size;
      return;
    }
    if (const int error = write_cached(fd_.get(), offset, data)) {
      fail(fmt::format("write [{}, +{})", offset, data.size()), error);
    }
    written_ += size;
  }

  void finish() override {
    if (!fd_ || written_ < size_) {
      throw Error(ErrorCode::usage, fmt::format("save {}: {} of {} bytes were written", path_,
                                                written_.load(), size_));
    }
    if (sync_ && ::fsync(fd_.get()) != 0) fail("fsync", errno);
    if (::renameat(folder_.get(), temporary_.c_str(), folder_.get(), name_.c_str()) != 0) {
      fail("rename the temporary", errno);
    }
    temporary_.clear();
    direct_ = Fd();
    fd_ = Fd();
    // Some filesystems (FUSE, CIFS) have no fsync of a folder; there the rename is as durable as
    // it gets.
    if (sync_ && ::fsync(folder_.get()) != 0 && errno != EINVAL && errno != ENOSYS) {
      fail("fsync its folder", errno);
    }
  }

  void abort() noexcept override {
    direct_ = Fd();
    fd_ = Fd();
    if (!temporary_.empty()) ::unlinkat(folder_.get(), temporary_.c_str(), 0);
    temporary_.clear();
  }

 private:
  [[noreturn]] void fail(const std::string& what, int error_number) const {
    throw system_error(ErrorCode::source, fmt::format("save {}: {}", path_, what), error_number);
  }

  // Of the file that will be replaced, so that it stays as private as it was. Throws where that is
  // no file.
  std::optional<mode_t> mode_of_existing() const {
    struct stat status {};
    if (::fstatat(folder_.get(), name_.c_str(), &status, 0) != 0) return std::nullopt;
    if (!S_ISREG(status.st_mode)) {
      throw Error(ErrorCode::source,
                  fmt::format("save {}: something is there that is no regular file", path_));
    }
    return status.st_mode & 0777;
  }

  void open_temporary(std::optional<mode_t> mode) {
    for (int tries = 0; !fd_ && tries < kMostPartialNames; ++tries) {
      std::string temporary = partial_name(name_);
      fd_ = Fd(::openat(folder_.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                        mode ? 0600 : 0666));
      if (fd_ && hold_partial(fd_.get())) {
        temporary_ = std::move(temporary);
      } else if (fd_) {
        fd_ = Fd();
      } else if (errno != EEXIST) {
        break;
      }
    }
    if (!fd_) fail("create a temporary beside it", errno);
    // Not every filesystem has modes; the default ones then have to do.
    if (mode) [[maybe_unused]]
      const int ignored = ::fchmod(fd_.get(), *mode);
  }

  // Takes the room now, where the filesystem can: a full disk is known before anything is written.
  // In memory that would be a tenth slower than a look at what is free.
  void reserve() {
    const auto size = static_cast<off_t>(size_);
    struct statvfs room {};
    if (filesystem_of(fd_.get()).memory) {
      if (::fstatvfs(fd_.get(), &room) == 0 && room.f_blocks > 0 &&
          size_ / room.f_frsize > room.f_bavail) {
        fail(fmt::format("take room for {} bytes", size_), ENOSPC);
      }
    } else {
      int result = -1;
      do {
        result = ::fallocate(fd_.get(), 0, 0, size);
      } while (result != 0 && errno == EINTR);
      if (result == 0) return;
      if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
        fail(fmt::format("take room for {} bytes", size_), errno);
      }
    }
    if (::ftruncate(fd_.get(), size) != 0) fail(fmt::format("grow to {} bytes", size_), errno);
  }

  void try_direct() {
    const DirectIo asked = open_direct(fd_.get(), path_);
    if (!asked.fd || filesystem_of(fd_.get()).memory || kDirectPart % asked.offset_align != 0) {
      return;
    }
    direct_ = Fd(::openat(folder_.get(), temporary_.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
    memory_align_ = std::max(asked.memory_align, asked.offset_align);
    offset_align_ = asked.offset_align;
  }

  [[nodiscard]] bool goes_direct(uint64_t offset, std::span<const std::byte> data) const {
    return direct_ && !refused_ && is_aligned(offset, offset_align_) &&
           is_aligned(data.size(), offset_align_) && is_aligned(data.data(), memory_align_);
  }

  // False if the filesystem wants no direct writes after all: then the page cache takes them.
  bool write_direct(uint64_t offset, std::span<const std::byte> data) {
    const int error = write_fully(direct_.get(), offset, data);
    if (error != 0 && error != EINVAL && error != EOPNOTSUPP) {
      fail(fmt::format("write [{}, +{}) directly", offset, data.size()), error);
    }
    if (error != 0) refused_ = true;
    return error == 0;
  }

  std::string path_;
  std::string name_;
  bool sync_;
  Fd folder_;
  Fd fd_;
  Fd direct_;              // the temporary past the page cache; empty: through it
  std::string temporary_;  // empty: there is none
  uint64_t memory_align_ = 1;
  uint64_t offset_align_ = 1;
  uint64_t size_ = 0;
  std::atomic<uint64_t> written_ = 0;
  std::atomic<bool> refused_ = false;
};

}  // namespace

std::unique_ptr<Writer> make_file_writer(const std::string& path, bool sync) {
  return std::make_unique<FileWriter>(path, sync);
}

}  // namespace inrush
