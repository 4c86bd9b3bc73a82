// GPUDirect Storage: cuFileRead on threads, from files open for direct I/O into device memory that
// the sink has registered. With `direct` the library is kept from reading through host memory.
#include <cerrno>
#include <mutex>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/read_fully.h"
#include "inrush/engines/blocking.h"
#include "inrush/engines/local_files.h"
#include "inrush/engines/rows.h"
#include "inrush/shim/cufile.h"
#include "inrush/shim/device.h"

namespace inrush {

namespace {

// Between two calls of the library a thread looks whether it shall stop.
constexpr uint64_t kMostPerCall = 16 * kMiB;
// What else the library would read into memory of its own first.
constexpr uint32_t kAlign = 4096;

class CufileSource final : public BlockingSource {
 public:
  explicit CufileSource(const EngineOptions& options)
      : library_(!options.direct), files_("cufile", always_direct(options), kMostPerCall) {}

  ~CufileSource() override {
    for (vendor::FileHandle handle : handles_) {
      if (handle != nullptr) library_.remove_file(handle);
    }
  }
  CufileSource(const CufileSource&) = delete;
  CufileSource& operator=(const CufileSource&) = delete;

  [[nodiscard]] EngineTraits traits() const override {
    EngineTraits traits = files_.traits();
    traits.memory_kinds = 1U << static_cast<uint32_t>(MemoryKind::device);
    traits.memory_align = std::max(traits.memory_align, kAlign);
    traits.offset_align = std::max(traits.offset_align, kAlign);
    return traits;
  }

  uint32_t open(const Blob& blob) override {
    const uint32_t file = files_.open(blob);
    const std::shared_ptr<const Fd> fd = files_.descriptor(file);
    const std::lock_guard lock(mutex_);
    handles_.resize(file);  // one that was refused keeps its place
    vendor::FileHandle handle = nullptr;
    device().inside([&] { handle = library_.add_file(fd->get(), blob.name); });
    handles_.push_back(handle);
    descriptors_.push_back(fd);  // the library has no other
    return file;
  }

  void attach(const Region& region) override {
    if (region.kind != MemoryKind::device) return;
    region_ = region;
    device_ = std::make_unique<Device>(DeviceDriver::load(DeviceVendor::cuda), region.device);
  }

  void accept(std::span<const Read> reads, size_t in_flight) override {
    files_.check(reads, in_flight);
  }

  std::optional<Error> read(const Read& read, const std::atomic<bool>& stop) override {
    std::optional<Error> error;
    device().inside([&] { error = read_inside(read, stop); });
    return error;
  }

 private:
  static EngineOptions always_direct(EngineOptions options) {
    options.direct = true;
    return options;
  }

  [[nodiscard]] const Device& device() const {
    if (device_) return *device_;
    throw Error(ErrorCode::usage, "cufile reads into device memory, and was given none");
  }

  std::optional<Error> read_inside(const Read& read, const std::atomic<bool>& stop) {
    const auto base = reinterpret_cast<uint64_t>(region_.data);
    const uint64_t into = reinterpret_cast<uint64_t>(read.target) - base;
    uint64_t arrived = 0;
    while (arrived < read.size) {
      if (stop) return files_.error(read, ECANCELED, arrived);
      const uint64_t most = std::min(read.size - arrived, kMostPerCall);
      const int64_t count =
          library_.read(handle_of(read.file), base, most, read.offset + arrived, into + arrived);
      if (is_cufile_result(count)) {
        const Error where = files_.error(read, EIO, arrived);
        return Error(ErrorCode::source,
                     where.message() + ", " + text_of_cufile(static_cast<int>(count)));
      }
      if (count == -EINTR || count == -EAGAIN) continue;
      if (count < 0) return files_.error(read, static_cast<int>(-count), arrived);
      arrived += static_cast<uint64_t>(count);
      // The end of the file; or a short count that is not aligned, which only the end gives.
      if (count == 0 || !is_aligned(arrived, kAlign)) break;
    }
    if (arrived >= read.required) return std::nullopt;
    return files_.error(read, 0, arrived);
  }

  [[nodiscard]] vendor::FileHandle handle_of(uint32_t file) const {
    const std::lock_guard lock(mutex_);
    return handles_.at(file);
  }

  const CuFile library_;
  LocalFiles files_;
  Region region_;
  std::unique_ptr<const Device> device_;
  mutable std::mutex mutex_;
  std::vector<vendor::FileHandle> handles_;  // by file; nullptr: refused
  std::vector<std::shared_ptr<const Fd>> descriptors_;
};

}  // namespace

std::unique_ptr<Engine> make_cufile(const EngineOptions& options) {
  return make_blocking_engine(std::make_shared<CufileSource>(options), options.wake_fd,
                              options.depth);
}

}  // namespace inrush
