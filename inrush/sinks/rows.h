// What sinks share about the pieces of a range: the room they need in a slot, the copy that places
// them, and what memory must be to hold a target.
#pragma once

#include <cstddef>
#include <cstdint>

#include "inrush/base/align.h"
#include "inrush/core/index.h"
#include "inrush/core/plan.h"
#include "inrush/core/tensor.h"

namespace inrush {

// Room in a slot at each end of a range: ends are rounded out to the strictest alignment in use.
inline constexpr uint64_t kSlotMargin = 64 * kKiB;

// From the bytes of its range to the bytes of its target.
void copy_rows(const Piece& piece, std::byte* target, const std::byte* source);

// Throws Error{usage} where a target does not fit. Its address may be any: what a caller gives by
// name is as it is.
void check_memory(const Memory& memory, const Target& target, const TensorInfo& tensor);

}  // namespace inrush
