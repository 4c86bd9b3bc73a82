#include "inrush/sinks/pinned_ring.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

#include "inrush/base/align.h"
#include "inrush/base/madvise.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

// Pinning costs about 0.1 ms for each MiB, so a small load must not pay for a large ring.
constexpr uint64_t kChunk = 16 * kMiB;

}  // namespace

PinnedRing::PinnedRing(std::shared_ptr<const Device> device, uint64_t slot_size, uint32_t slots)
    : device_(std::move(device)), slot_size_(slot_size), slots_(slots) {
  const uint64_t size = slot_size_ * slots_;
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::memory, fmt::format("reserve {} bytes for pinned slots", size));
  }
  base_ = static_cast<std::byte*>(memory);
  advise_huge_pages(memory, size);
  ::madvise(memory, size, MADV_DONTFORK);  // a child's copy-on-write would move pages that are read
  prefer_memory_of(device_->numa(), memory, size);
  try {
    grow();
  } catch (...) {
    ::munmap(base_, size);
    throw;
  }
}

PinnedRing::~PinnedRing() {
  for (std::byte* chunk : chunks_) device_->unpin(chunk);
  ::munmap(base_, slot_size_ * slots_);
}

Region PinnedRing::region() const {
  Region region;
  region.data = base_;
  region.size = slot_size_ * slots_;
  region.kind = MemoryKind::pinned;
  return region;
}

void PinnedRing::grow() {
  const uint32_t before = pinned();
  const auto more = static_cast<uint32_t>(std::max<uint64_t>(2, kChunk / slot_size_));
  const uint32_t count = std::min(more, slots_ - before);
  if (count == 0) return;
  chunks_.reserve(chunks_.size() + 1);
  device_->pin(slot(before), count * slot_size_);
  chunks_.push_back(slot(before));
  pinned_.store(before + count, std::memory_order_release);
}

}  // namespace inrush
