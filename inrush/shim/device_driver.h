// The driver of a vendor's GPUs, found at run time. Immutable once loaded; any thread.
// Asking it about devices makes no context on any of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/error.h"
#include "inrush/core/region.h"
#include "inrush/shim/device_table.h"

namespace inrush {

struct DeviceFact {
  std::string name;
  std::string bus;          // PCI, "0000:3b:00.0"
  int numa_node = -1;       // of the host memory that is nearest; -1: not known
  bool integrated = false;  // its memory is the host's
  bool coherent = false;    // it reads the host's pages through the host's page tables
  uint64_t max_pitch = 0;   // of 2-D copies, bytes
  bool read_only = false;   // memory that may only be read can be registered
};

class DeviceDriver {
 public:
  // Throws Error{usage} that says why it cannot be used: no library, a symbol missing, too old, no
  // device, or the driver's own refusal.
  static std::shared_ptr<const DeviceDriver> load(DeviceVendor vendor);

  [[nodiscard]] DeviceVendor vendor() const { return vendor_; }
  [[nodiscard]] const vendor::DeviceTable& table() const { return table_; }
  [[nodiscard]] const std::string& library() const { return library_; }
  [[nodiscard]] int version() const { return version_; }
  [[nodiscard]] std::string version_text() const;
  [[nodiscard]] int device_count() const { return device_count_; }

  // Throws Error{usage} for an index that there is none of. `root` stands before /sys, for tests.
  [[nodiscard]] DeviceFact describe(int index, const std::string& root = "") const;
  void check_index(int index) const;
  [[nodiscard]] int handle_of(int index) const;  // what the driver's own functions take

  // "cuda:0"
  [[nodiscard]] std::string name_of(int device) const;

  // "allocate 8 bytes on cuda:0: CUDA_ERROR_OUT_OF_MEMORY (2)"; Error{memory} for that one, else
  // Error{source}.
  [[nodiscard]] Error error(std::string_view what, vendor::Result result) const;
  void check(vendor::Result result, std::string_view what) const {
    if (result != vendor::kSuccess) throw error(what, result);
  }

 private:
  DeviceDriver() = default;
  void bind_cuda();
  void bind_hip();
  void start();
  [[nodiscard]] int attribute(int number, int device) const;

  DeviceVendor vendor_ = DeviceVendor::cuda;
  vendor::DeviceTable table_{};
  vendor::Attributes attributes_{};
  std::string library_;
  int version_ = 0;
  int device_count_ = 0;
};

std::string_view name_of(DeviceVendor vendor);

}  // namespace inrush
