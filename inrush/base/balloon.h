// What a virtual machine's host does with the memory that is free in it. Any thread.
#pragma once

#include <string>

namespace inrush {

// Whether it takes it back at once (free page reporting of virtio's balloon).
[[nodiscard]] bool is_free_memory_taken_back(
    const std::string& balloons = "/sys/bus/virtio/drivers/virtio_balloon");

}  // namespace inrush
