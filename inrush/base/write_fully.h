// A write that completes wholly: the one place that resumes short counts and EINTR. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

// Writes all of `data` at `offset`; 0 or an errno.
int write_fully(int fd, uint64_t offset, std::span<const std::byte> data);

}  // namespace inrush
