#include "inrush/sinks/rows.h"

#include <fmt/format.h>

#include <cstring>

#include "inrush/core/error.h"

namespace inrush {

void copy_rows(const Piece& piece, std::byte* target, const std::byte* source) {
  source += piece.source_offset;
  target += piece.target_offset;
  for (uint32_t row = 0; row < piece.rows; ++row) {
    std::memcpy(target, source, piece.row_size);
    source += piece.source_pitch;
    target += piece.target_pitch;
  }
}

void check_memory(const Memory& memory, const Target& target, const TensorInfo& tensor) {
  if (memory.size < target.size) {
    throw Error(ErrorCode::usage, fmt::format("memory for tensor {} has {} bytes, {} are needed",
                                              tensor.name, memory.size, target.size));
  }
}

}  // namespace inrush
