#include "inrush/sinks/file_windows.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>

#include "inrush/base/align.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr int kReserved = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

}  // namespace

FileWindows::FileWindows(std::shared_ptr<const Device> device, uint64_t window_size,
                         uint32_t windows)
    : device_(std::move(device)),
      page_size_(static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))),
      window_size_(align_up(window_size, page_size_) + page_size_),
      opened_(windows) {
  const uint64_t size = window_size_ * windows;
  void* memory = ::mmap(nullptr, size, PROT_NONE, kReserved, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::memory, fmt::format("reserve {} bytes for windows onto files", size));
  }
  base_ = static_cast<std::byte*>(memory);
}

FileWindows::~FileWindows() {
  for (uint32_t i = 0; i < opened_.size(); ++i) close(i);
  ::munmap(base_, window_size_ * opened_.size());
}

std::byte* FileWindows::open(uint32_t window, int fd, uint64_t offset, uint64_t size,
                             std::string& refusal) {
  const uint64_t before = offset % page_size_;
  const uint64_t mapped = align_up(before + size, page_size_);
  assert(mapped <= window_size_ && opened_[window] == 0);
  void* memory = ::mmap(at(window), mapped, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
                        static_cast<off_t>(offset - before));
  if (memory == MAP_FAILED) {
    refusal = fmt::format("map {} bytes of a file: {}", mapped, std::strerror(errno));
    return nullptr;
  }
  ::madvise(memory, mapped, MADV_DONTFORK);
  refusal = device_->pin_read_only(memory, mapped);
  if (!refusal.empty()) {
    ::mmap(memory, mapped, PROT_NONE, kReserved | MAP_FIXED, -1, 0);
    return nullptr;
  }
  opened_[window] = mapped;
  return at(window) + before;
}

void FileWindows::close(uint32_t window) noexcept {
  if (opened_[window] == 0) return;
  device_->unpin(at(window));
  ::mmap(at(window), opened_[window], PROT_NONE, kReserved | MAP_FIXED, -1, 0);
  opened_[window] = 0;
}

Region FileWindows::region() const {
  Region region;
  region.data = base_;
  region.size = window_size_ * opened_.size();
  region.kind = MemoryKind::pinned;
  region.backing = Backing::mapping;
  return region;
}

}  // namespace inrush
