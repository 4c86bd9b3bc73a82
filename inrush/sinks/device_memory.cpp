#include "inrush/sinks/device_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr uint64_t kSmallBlock = 2 * kMiB;
constexpr uint64_t kSmall = 512 * kKiB;
// Where it can be had: what the drivers' own allocators align to. At least: loads of 16 bytes.
constexpr uint64_t kAlignment = 256;
constexpr uint64_t kLeastAlignment = 16;
// Direct reads into memory that the host can touch land at addresses congruent to the file.
constexpr uint64_t kCongruence = 4096;

Memory on_host(const MemoryRequest& request) {
  constexpr uint64_t kLine = 64;
  void* memory = std::aligned_alloc(kLine, align_up(std::max<uint64_t>(request.size, 1), kLine));
  if (memory == nullptr) {
    throw Error(ErrorCode::memory, fmt::format("allocate {} bytes for a tensor", request.size));
  }
  Memory out;
  out.data = static_cast<std::byte*>(memory);
  out.size = request.size;
  out.owner = {memory, [](void* address) { std::free(address); }};
  return out;
}

std::shared_ptr<void> allocate(const std::shared_ptr<const Device>& device, uint64_t size) {
  const vendor::Address address = device->allocate(std::max<uint64_t>(size, 1));
  return {reinterpret_cast<void*>(address),
          [device](void* memory) { device->free(reinterpret_cast<vendor::Address>(memory)); }};
}

// The block that small tensors of one device go into, as long as they fit.
struct Block {
  std::vector<std::pair<size_t, uint64_t>> places;  // request, offset in the block
  uint64_t end = 0;
  uint64_t file_offset = 0;  // of the last one

  // Where a request goes that comes after those: as far behind the last one as in the file, where
  // that is near and aligned.
  [[nodiscard]] uint64_t offset_for(const MemoryRequest& request) const {
    if (places.empty()) return 0;
    const uint64_t last = places.back().second;
    const uint64_t distance = request.file_offset - file_offset;
    const bool near = request.file_offset >= file_offset && last + distance >= end &&
                      last + distance < end + kAlignment;
    const uint64_t alignment = std::max<uint64_t>(request.alignment, kLeastAlignment);
    if (near && is_aligned(last + distance, alignment)) return last + distance;
    return align_up(end, kAlignment);
  }
};

class Batch {
 public:
  Batch(std::span<const MemoryRequest> requests, std::vector<Memory>& answers)
      : requests_(requests), answers_(answers) {}

  void add(size_t index, const std::shared_ptr<const Device>& device) {
    const MemoryRequest& request = requests_[index];
    if (request.size >= kSmall || device->fact().integrated) {
      place_alone(index, device);
      return;
    }
    Block& block = blocks_[device];
    uint64_t offset = block.offset_for(request);
    if (offset + request.size > kSmallBlock) {
      close(device, block);
      offset = 0;
    }
    block.places.emplace_back(index, offset);
    block.end = offset + request.size;
    block.file_offset = request.file_offset;
  }

  void close_all() {
    for (auto& [device, block] : blocks_) close(device, block);
  }

 private:
  void place_alone(size_t index, const std::shared_ptr<const Device>& device) {
    const MemoryRequest& request = requests_[index];
    const bool congruent = device->fact().integrated && request.size >= kSmall;
    const auto owner = allocate(device, request.size + (congruent ? kCongruence : 0));
    const auto address = reinterpret_cast<uint64_t>(owner.get());
    const uint64_t shift = congruent ? (request.file_offset - address) % kCongruence /
                                           request.alignment * request.alignment
                                     : 0;
    answer(index, device, owner, shift);
  }

  void close(const std::shared_ptr<const Device>& device, Block& block) {
    if (block.places.empty()) return;
    const auto owner = allocate(device, block.end);
    for (const auto& [index, offset] : block.places) answer(index, device, owner, offset);
    block = {};
  }

  void answer(size_t index, const std::shared_ptr<const Device>& device,
              const std::shared_ptr<void>& owner, uint64_t offset) {
    Memory& memory = answers_[index];
    memory.data = static_cast<std::byte*>(owner.get()) + offset;
    memory.size = requests_[index].size;
    memory.kind = MemoryKind::device;
    memory.device = device->index();
    memory.vendor = device->driver().vendor();
    memory.owner = owner;
  }

  std::span<const MemoryRequest> requests_;
  std::vector<Memory>& answers_;
  std::map<std::shared_ptr<const Device>, Block> blocks_;
};

}  // namespace

Allocator device_allocator(std::vector<std::shared_ptr<const Device>> devices, DevicePlace place) {
  return [devices = std::move(devices),
          place = std::move(place)](std::span<const MemoryRequest> requests) {
    std::vector<Memory> answers(requests.size());
    Batch batch(requests, answers);
    for (size_t i = 0; i < requests.size(); ++i) {
      const int where = place ? place(requests[i].name) : 0;
      if (where < 0) {
        answers[i] = on_host(requests[i]);
      } else {
        batch.add(i, devices.at(static_cast<size_t>(where)));
      }
    }
    batch.close_all();
    return answers;
  };
}

}  // namespace inrush
