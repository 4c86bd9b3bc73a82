#include "inrush/sinks/pinned_ring.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "inrush/base/align.h"
#include "inrush/base/madvise.h"
#include "inrush/base/parallel.h"
#include "inrush/base/thread.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

// A small load must not pay for a large ring: pinning costs 0.33 ms for each MiB where the driver
// is the first to touch it, and 0.13 ms where 8 threads did before (github.com/ai-dynamo/dynamo,
// issue 13710, an H100); 0.48 and 0.10 ms in huge pages (github.com/NVIDIA/cudf, pull 23457, an
// L4).
constexpr uint64_t kChunk = 16 * kMiB;
// Beyond 4 threads the second of these gained nothing.
constexpr size_t kTouching = 4;

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

// The memory is the device's node's whoever touches it, but clearing it from another one is slower:
// the consumer's thread, which is kept nowhere, leaves it to others.
void PinnedRing::touch(std::byte* chunk, uint64_t size) const {
  const NumaNode& node = device_->numa();
  const size_t cpus = node.cpus.empty() ? std::thread::hardware_concurrency() : node.cpus.size();
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto work = [&] {
    parallel_for(align_up(size, kHugePage) / kHugePage, std::min(kTouching, cpus), [&](size_t i) {
      const uint64_t end = std::min(size, (i + 1) * kHugePage);
      for (uint64_t at = i * kHugePage; at < end; at += page) {
        *static_cast<volatile std::byte*>(chunk + at) = std::byte{0};
      }
    });
  };
  if (node.cpus.empty()) {
    work();
    return;
  }
  try {
    start_thread("touches pinned memory", [&] {
      stay_on(node);
      work();
    }).join();
  } catch (const Error&) {  // there is none to be had: the driver touches it by itself
  }
}

void PinnedRing::grow() {
  const uint32_t before = pinned();
  const auto more = static_cast<uint32_t>(std::max<uint64_t>(2, kChunk / slot_size_));
  const uint32_t count = std::min(more, slots_ - before);
  if (count == 0) return;
  chunks_.reserve(chunks_.size() + 1);
  touch(slot(before), count * slot_size_);
  device_->pin(slot(before), count * slot_size_);
  chunks_.push_back(slot(before));
  pinned_.store(before + count, std::memory_order_release);
}

}  // namespace inrush
