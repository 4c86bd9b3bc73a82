// Slots of pinned host memory, which storage reads into and devices copy out of. The address space
// of all of them is reserved at once; they are pinned a chunk at a time, as many as are needed.
// Any thread may ask; one at a time grows it. Its memory lies on the device's NUMA node.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "inrush/core/region.h"
#include "inrush/shim/device.h"

namespace inrush {

class PinnedRing {
 public:
  // Pins the first chunk. Throws Error{memory} where the address space is not to be had, and what
  // the driver says where it refuses.
  PinnedRing(std::shared_ptr<const Device> device, uint64_t slot_size, uint32_t slots);
  ~PinnedRing();
  PinnedRing(const PinnedRing&) = delete;
  PinnedRing& operator=(const PinnedRing&) = delete;

  [[nodiscard]] std::byte* slot(uint32_t index) const { return base_ + index * slot_size_; }
  // Slots below it can be used.
  [[nodiscard]] uint32_t pinned() const { return pinned_.load(std::memory_order_acquire); }
  [[nodiscard]] Region region() const;

  // Pins the next chunk: takes milliseconds.
  void grow();

 private:
  void touch(std::byte* chunk, uint64_t size) const;

  std::shared_ptr<const Device> device_;
  uint64_t slot_size_;
  uint32_t slots_;
  std::byte* base_ = nullptr;
  std::vector<std::byte*> chunks_;
  std::atomic<uint32_t> pinned_{0};
};

}  // namespace inrush
