// Slots of device memory that storage writes into by itself: one allocation, registered with cuFile
// for as long as this lives, and given back to the driver then. Never the framework's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "inrush/core/region.h"
#include "inrush/shim/cufile.h"
#include "inrush/shim/device.h"

namespace inrush {

class DeviceSlots {
 public:
  // Throws Error{memory} where there is too little, or it cannot be registered.
  DeviceSlots(std::shared_ptr<const Device> device, uint64_t slot_size, uint32_t slots);
  ~DeviceSlots();
  DeviceSlots(const DeviceSlots&) = delete;
  DeviceSlots& operator=(const DeviceSlots&) = delete;

  // An address of the device.
  [[nodiscard]] std::byte* slot(uint32_t index) const;
  [[nodiscard]] Region region() const;

 private:
  void keep_primary();

  std::shared_ptr<const Device> device_;
  const CuFile library_;
  uint64_t slot_size_;
  uint32_t slots_;
  vendor::Address memory_ = 0;
  vendor::Address first_ = 0;  // aligned
};

}  // namespace inrush
