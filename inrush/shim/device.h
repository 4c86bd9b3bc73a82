// One device, with its primary context held for as long as this lives: the context that frameworks
// use too, and none on any other device. Every call enters it and leaves the thread as it was.
// Any thread. What throws, throws Error with the driver's own name and number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "inrush/base/numa.h"
#include "inrush/shim/device_driver.h"

namespace inrush {

// Rows of bytes to a device, from pinned host memory or from its own.
struct DeviceCopy {
  vendor::Address target = 0;
  const std::byte* source = nullptr;
  bool from_device = false;
  uint64_t row_size = 0;
  uint64_t rows = 1;
  uint64_t target_pitch = 0;
  uint64_t source_pitch = 0;
  const void* block = nullptr;  // what owns the target: no copy crosses from one to another
};

struct DeviceRoom {
  uint64_t free = 0;
  uint64_t total = 0;
};

class Device {
 public:
  // `root` stands before /sys, for tests.
  Device(std::shared_ptr<const DeviceDriver> driver, int index, const std::string& root = "");
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] const DeviceFact& fact() const { return fact_; }
  [[nodiscard]] const NumaNode& numa() const { return numa_; }
  [[nodiscard]] const DeviceDriver& driver() const { return *driver_; }
  [[nodiscard]] const std::string& name() const { return name_; }

  // Calls it in the device's context.
  void inside(const std::function<void()>& work) const;

  // Holds the primary context for the rest of the process, too: for what others leave in it. Once
  // more with each call, which the driver counts.
  void keep_primary() const;

  [[nodiscard]] DeviceRoom room() const;
  [[nodiscard]] vendor::Address allocate(uint64_t size) const;
  void free(vendor::Address address) const noexcept;
  // Where the host can touch memory of this device; nullptr: nowhere.
  [[nodiscard]] std::byte* host_address(vendor::Address address) const;

  // Pins host memory, for every device of this vendor.
  void pin(void* memory, uint64_t size) const;
  void unpin(void* memory) const noexcept;
  // The same of memory that may only be read, where fact().read_only; "" or why it is refused.
  [[nodiscard]] std::string pin_read_only(void* memory, uint64_t size) const;

  [[nodiscard]] vendor::Stream make_stream() const;
  [[nodiscard]] vendor::Event make_event() const;
  void destroy(vendor::Stream stream) const noexcept;
  void destroy(vendor::Event event) const noexcept;

  // On streams: none of them waits.
  void copy(const DeviceCopy& copy, vendor::Stream stream) const;
  void fill_zeros(vendor::Address target, uint64_t size, vendor::Stream stream) const;
  void record(vendor::Event event, vendor::Stream stream) const;
  void wait_on_stream(vendor::Stream stream, vendor::Event event) const;

  [[nodiscard]] bool is_done(vendor::Event event) const;
  // Blocks this thread.
  void wait(vendor::Event event) const;
  void wait(vendor::Stream stream) const;

 private:
  class Scope;
  void check(vendor::Result result, const char* what) const {
    if (result != vendor::kSuccess) fail(result, what);
  }
  void copy_row(const DeviceCopy& copy, uint64_t row, vendor::Stream stream) const;
  [[nodiscard]] vendor::Result copy_rows(const DeviceCopy& copy, vendor::Stream stream) const;
  [[noreturn]] void fail(vendor::Result result, const std::string& what) const;

  std::shared_ptr<const DeviceDriver> driver_;
  const vendor::DeviceTable& table_;
  int index_;
  int handle_;
  DeviceFact fact_;
  NumaNode numa_;
  std::string name_;
  vendor::Primary primary_ = nullptr;  // CUDA's
};

}  // namespace inrush
