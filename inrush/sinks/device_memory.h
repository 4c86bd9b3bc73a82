// Memory of our own for tensors on devices, where no framework gives any. Large tensors have an
// allocation each; small ones share blocks of 2 MiB at most, so that a kept tensor pins little, and
// lie there as in the file, so that one copy fills many.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "inrush/core/allocator.h"
#include "inrush/shim/device.h"

namespace inrush {

// Index into the devices, by tensor name; -1: host memory.
using DevicePlace = std::function<int(std::string_view tensor)>;

// Freed in the device's context by whoever drops the last owner. Throws Error{memory}.
Allocator device_allocator(std::vector<std::shared_ptr<const Device>> devices, DevicePlace place);

}  // namespace inrush
