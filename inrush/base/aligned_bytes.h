// Memory of one's own at an alignment, such as direct I/O wants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "inrush/base/align.h"

namespace inrush {

struct FreeBytes {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};
using AlignedBytes = std::unique_ptr<std::byte, FreeBytes>;

// At least `size` bytes that begin at a multiple of `alignment`; null where there is no memory.
inline AlignedBytes allocate_aligned(uint64_t alignment, uint64_t size) {
  return AlignedBytes(
      static_cast<std::byte*>(std::aligned_alloc(alignment, align_up(size, alignment))));
}

}  // namespace inrush
