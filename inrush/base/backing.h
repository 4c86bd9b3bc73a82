// Whether a hypervisor backs the memory that a file's pages lie in. It does so when the guest's
// processor first touches a page, for 7 us each where it hands out single ones; what a device wrote
// is not touched yet. Any thread.
#pragma once

#include <cstdint>

namespace inrush {

// By a few samples of bytes that are in the page cache. False where it cannot be told.
[[nodiscard]] bool is_unbacked(int fd, uint64_t offset, uint64_t size);

// Has the processor read a byte of every page, so that whoever reads them next need not wait.
// By pread, for the file may shrink.
void touch_pages(int fd, uint64_t offset, uint64_t size);

}  // namespace inrush
