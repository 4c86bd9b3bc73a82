// A write that is whole: short counts and EINTR are resumed. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

// Writes all of `data` at `offset` of the file. Returns 0 or an errno.
int write_fully(int fd, uint64_t offset, std::span<const std::byte> data);

}  // namespace inrush
