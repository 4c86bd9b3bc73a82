// cachestat(2), which C libraries do not know yet.
#pragma once

#include <cstdint>
#include <optional>

namespace inrush {

// Pages of this range of the open file that are in the page cache. Nothing, and errno, where the
// kernel does not say: before Linux 6.5, or to those who may not write the file (EPERM).
std::optional<uint64_t> cached_pages(int fd, uint64_t offset, uint64_t size);

}  // namespace inrush
