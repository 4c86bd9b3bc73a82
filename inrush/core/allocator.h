// An Allocator gives destination memory: torch's, numpy's, the caller's. A value from the caller,
// called only on the consumer's thread, in batches, ahead of delivery, never under a lock.
// Empty means: the sink's own memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "inrush/core/tensor.h"

namespace inrush {

struct MemoryRequest {
  uint32_t target = 0;  // index into Plan::targets
  std::string_view name;
  Dtype dtype = Dtype::u8;
  std::span<const uint64_t> shape;
  uint64_t size = 0;  // bytes
  // Of the tensor's type, though an answer may do with its dtype's where the caller knows better.
  uint32_t alignment = 1;
  // Of the first byte in its blob: direct reads can land at addresses congruent to it.
  uint64_t file_offset = 0;
  bool due = false;  // the load cannot go on without it
};

// Answers one Memory for each request, in order; fewer where it has no more for now, but all that
// are due. May throw Error{memory}.
using Allocator = std::function<std::vector<Memory>(std::span<const MemoryRequest>)>;

}  // namespace inrush
