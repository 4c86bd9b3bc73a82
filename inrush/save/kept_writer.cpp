// A file that whoever is interrupted leaves for whoever goes on.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/base/write_fully.h"
#include "inrush/core/error.h"
#include "inrush/save.h"

namespace inrush {
namespace {

constexpr uint64_t kWriteBack = 8 * kMiB;  // bytes after which the disk is told to begin

class KeptWriter final : public Writer {
 public:
  explicit KeptWriter(std::string path) : path_(std::move(path)) {}

  [[nodiscard]] WriterTraits traits() const override { return {}; }

  void create(uint64_t size) override {
    fd_ = Fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
    struct stat status {};
    if (!fd_ || ::fstat(fd_.get(), &status) != 0) fail("open", errno);
    size_ = size;
    if (static_cast<uint64_t>(status.st_size) == size) return;
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) fail("grow", errno);
    // A full disk is known before anything is written, where the filesystem can tell.
    const int error = ::posix_fallocate(fd_.get(), 0, static_cast<off_t>(size));
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
      fail(fmt::format("take room for {} bytes", size), error);
    }
  }

  void write(uint64_t offset, std::span<const std::byte> data) override {
    if (!fd_ || data.size() > size_ || offset > size_ - data.size()) {
      throw Error(ErrorCode::usage,
                  fmt::format("save {} [{}, +{}): outside of the {} bytes created", path_, offset,
                              data.size(), size_));
    }
    if (const int error = write_cached(fd_.get(), offset, data)) {
      fail(fmt::format("write [{}, +{})", offset, data.size()), error);
    }
    waiting_ += data.size();
    if (waiting_ < kWriteBack) return;
    // The kernel would let the disk idle for seconds, and finish() would wait for all of it. Only a
    // hint: what fails here fails there too.
    ::sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
    waiting_ = 0;
  }

  // May run beside write(), of whose bytes it takes what it finds.
  void finish() override {
    if (::fsync(fd_.get()) != 0) fail("fsync", errno);
  }

  void abort() noexcept override { fd_ = Fd(); }

 private:
  [[noreturn]] void fail(const std::string& what, int error_number) const {
    throw system_error(ErrorCode::source, fmt::format("save {}: {}", path_, what), error_number);
  }

  std::string path_;
  Fd fd_;
  uint64_t size_ = 0;
  uint64_t waiting_ = 0;  // bytes written that the disk was not told of
};

}  // namespace

std::unique_ptr<Writer> make_kept_writer(const std::string& path) {
  return std::make_unique<KeptWriter>(path);
}

}  // namespace inrush
