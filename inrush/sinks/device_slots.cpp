#include "inrush/sinks/device_slots.h"

#include <utility>

#include "inrush/base/align.h"

namespace inrush {
namespace {

// What the GPU's memory is pinned in for other devices.
constexpr uint64_t kPage = 64 * kKiB;

}  // namespace

// What is registered is the load's to judge: whether the library may go through host memory was
// decided before, and the driver is open with that already.
DeviceSlots::DeviceSlots(std::shared_ptr<const Device> device, uint64_t slot_size, uint32_t slots)
    : device_(std::move(device)), library_(true), slot_size_(slot_size), slots_(slots) {
  memory_ = device_->allocate(slot_size_ * slots_ + kPage);
  first_ = align_up(memory_, kPage);
  try {
    device_->inside([&] { library_.add_memory(first_, slot_size_ * slots_); });
    keep_primary();
  } catch (...) {
    device_->free(memory_);
    throw;
  }
}

// cuFile stays open and leaves things of its own in the context, which must not go with the last
// load: nobody may close cuFile, for others in the process may use it.
void DeviceSlots::keep_primary() {
  try {
    device_->keep_primary();
  } catch (const Error&) {
    library_.remove_memory(first_);
    throw;
  }
}

DeviceSlots::~DeviceSlots() {
  try {
    device_->inside([&] { library_.remove_memory(first_); });
  } catch (const Error&) {  // the context is lost: it is tried in any case
    library_.remove_memory(first_);
  }
  device_->free(memory_);
}

std::byte* DeviceSlots::slot(uint32_t index) const {
  return reinterpret_cast<std::byte*>(first_ + index * slot_size_);
}

Region DeviceSlots::region() const {
  Region region;
  region.data = slot(0);
  region.size = slot_size_ * slots_;
  region.kind = MemoryKind::device;
  region.device = device_->index();
  return region;
}

}  // namespace inrush
