// Loads whose tensors land in the memory of GPUs: which devices there are, and where tensors go.
//
//   inrush::LoadOptions options;
//   inrush::deliver_to(options, {.devices = {"cuda:0"}});
//   inrush::Load load(checkpoint, options);
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/load.h"

namespace inrush {

struct DeviceDescription {
  std::string name;         // as the driver calls it
  std::string bus;          // PCI
  int numa_node = -1;       // of the nearest host memory; -1: not known
  bool integrated = false;  // its memory is the host's
  std::string numa;         // what of that node a load may use, in words; empty: it is not known
};

struct DriverDescription {
  std::string vendor;   // "cuda", "hip", "cufile"
  std::string library;  // where it was found
  std::string version;
  std::string reason;  // why it cannot be used; empty: it can
  std::vector<DeviceDescription> devices;
};

// What is here of each vendor's. Makes no context on any device.
std::vector<DriverDescription> describe_drivers();

struct DeviceOptions {
  // "cuda", "cuda:1", "hip:0", and "cpu" for tensors that stay in host memory. One vendor's.
  std::vector<std::string> devices;
  // Index into `devices` by tensor name; empty: the first.
  std::function<size_t(std::string_view tensor)> place;
  // Handle of the stream that the consumer works on, called on its thread once for each answer of
  // the allocator. Empty: the default one.
  std::function<void*(int device)> consumer_stream;
  std::string root{};  // before /sys: tests put a machine of their own there
};

// Makes the load's tensors land there. LoadOptions::allocator, where it is set, gives the memory
// (MemoryKind::device, with the device's index); else the driver does. LoadOptions::budget is the
// most bytes of pinned host memory. What is delivered is complete: ready on every stream.
// Throws Error{usage} for a device that there is none of, saying why.
void deliver_to(LoadOptions& options, const DeviceOptions& devices);

// "cuda" or "hip" and the index, in the driver's order, of such a name; -1 for "cpu". Throws
// Error{usage} for any other.
struct DeviceName {
  std::string vendor;
  int index = 0;
};
DeviceName parse_device(std::string_view name);

}  // namespace inrush
