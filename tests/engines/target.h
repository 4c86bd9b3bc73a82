// Where the suites have engines read to: memory of the host, a private mapping of the file, memory
// that is pinned for a device, or the device's own. The devices are the fake driver's.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "inrush/core/region.h"
#include "inrush/shim/cufile.h"
#include "inrush/shim/device.h"
#include "tests/engines/scratch.h"
#include "tests/fake_driver/fixture.h"

namespace inrush::testing {

class Target {
 public:
  // `fd`: of the file that is mapped; -1: none.
  explicit Target(uint64_t size, int fd = -1) : arena_(std::make_unique<Arena>(size, fd)) {
    region_.data = arena_->data();
    region_.size = fd < 0 ? arena_->size() : size;
    region_.backing = fd < 0 ? Backing::anonymous : Backing::mapping;
  }
  Target(uint64_t size, std::shared_ptr<const Device> device, const test::FakeDriver& driver,
         MemoryKind kind)
      : device_(std::move(device)), driver_(&driver) {
    region_.kind = kind;
    region_.size = align_up(size, 2 * kMiB);
    memory_ = device_->allocate(region_.size + kPage);
    if (kind == MemoryKind::device) {
      library_ = std::make_unique<CuFile>(false);
      region_.device = device_->index();
      region_.data = reinterpret_cast<std::byte*>(align_up(memory_, kPage));
      device_->inside([&] { library_->add_memory(address(), region_.size); });
      device_->keep_primary();  // as the sink does
    } else {
      arena_ = std::make_unique<Arena>(region_.size);
      region_.data = arena_->data();
      device_->pin(region_.data, region_.size);
    }
  }
  ~Target() {
    if (!device_) return;
    if (library_) device_->inside([&] { library_->remove_memory(address()); });
    if (arena_) device_->unpin(region_.data);
    device_->free(memory_);
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  [[nodiscard]] std::byte* data() const { return region_.data; }
  [[nodiscard]] const Region& region() const { return region_; }

  // Whether these bytes arrived: what is pinned is copied to the device first, and compared there.
  [[nodiscard]] bool holds(const Bytes& bytes, uint64_t at = 0) const {
    const std::byte* found = region_.data + at;
    if (device_ && arena_ && !bytes.empty()) {
      DeviceCopy copy;
      copy.target = memory_;
      copy.source = found;
      copy.row_size = bytes.size();
      const vendor::Stream stream = device_->make_stream();
      device_->copy(copy, stream);
      device_->wait(stream);
      device_->destroy(stream);
      found = static_cast<const std::byte*>(driver_->map(reinterpret_cast<void*>(memory_)));
    }
    return std::memcmp(found, bytes.data(), bytes.size()) == 0;
  }

 private:
  static constexpr uint64_t kPage = 64 * kKiB;  // as in sinks/device_slots.cpp
  [[nodiscard]] uint64_t address() const { return reinterpret_cast<uint64_t>(region_.data); }

  Region region_;
  std::unique_ptr<Arena> arena_;
  std::shared_ptr<const Device> device_;
  const test::FakeDriver* driver_ = nullptr;
  std::unique_ptr<const CuFile> library_;
  vendor::Address memory_ = 0;
};

}  // namespace inrush::testing
