// What a plan must amount to, worked out without any of the planner's ideas: bit by bit from the
// definition of a slice, and byte by byte from the definition of a piece.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "inrush/core/dtype.h"
#include "inrush/core/index.h"
#include "inrush/core/plan.h"

namespace inrush::naive {

using Bytes = std::vector<uint8_t>;

// For each bit of what is delivered, in order: the bit of the blob it comes from.
inline std::vector<uint64_t> wanted_bits(const TensorInfo& tensor, const Want& want) {
  std::vector<uint64_t> bits;
  if (want.slice.empty() && tensor.strides.empty()) {
    for (uint64_t i = 0; i < tensor.size * 8; ++i) bits.push_back(tensor.offset * 8 + i);
    return bits;
  }
  const size_t rank = tensor.shape.size();
  std::vector<uint64_t> strides = tensor.strides;
  if (strides.empty()) {
    strides.resize(rank);
    uint64_t stride = 1;
    for (size_t i = rank; i-- > 0;) {
      strides[i] = stride;
      stride *= tensor.shape[i];
    }
  }
  std::vector<uint64_t> at(rank);
  std::vector<SliceDim> dims(rank);
  for (size_t i = 0; i < rank; ++i) {
    dims[i] = i < want.slice.size() ? want.slice[i] : SliceDim{0, tensor.shape[i], 1};
    if (dims[i].start == dims[i].stop) return bits;
    at[i] = dims[i].start;
  }
  const uint64_t width = bits_of(tensor.dtype);
  while (true) {
    uint64_t element = 0;
    for (size_t i = 0; i < rank; ++i) element += at[i] * strides[i];
    for (uint64_t bit = 0; bit < width; ++bit) {
      bits.push_back(tensor.offset * 8 + element * width + bit);
    }
    size_t i = rank;
    while (i > 0 && (at[i - 1] += dims[i - 1].step) >= dims[i - 1].stop) {
      at[i - 1] = dims[i - 1].start;
      --i;
    }
    if (i == 0) return bits;
  }
}

inline Bytes slice(const Bytes& blob, const TensorInfo& tensor, const Want& want) {
  const std::vector<uint64_t> bits = wanted_bits(tensor, want);
  Bytes out(bits.size() / 8);
  for (size_t i = 0; i < bits.size(); ++i) {
    const uint8_t bit = (blob[bits[i] / 8] >> (bits[i] % 8)) & 1;
    out[i / 8] = static_cast<uint8_t>(out[i / 8] | (bit << (i % 8)));
  }
  return out;
}

// Calls visit(source offset in the range, target offset) for each byte of a piece.
template <typename Visit>
void each_byte(const Piece& piece, Visit visit) {
  for (uint64_t row = 0; row < piece.rows; ++row) {
    for (uint64_t i = 0; i < piece.row_size; ++i) {
      visit(piece.source_offset + row * piece.source_pitch + i,
            piece.target_offset + row * piece.target_pitch + i);
    }
  }
}

}  // namespace inrush::naive
