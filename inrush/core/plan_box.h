// A Box is what one Target takes from its blob, as bytes: runs, repeated along dimensions, each
// with a pitch in the file and a pitch in the target. Dimensions nest: all bytes of one index of a
// dimension lie before those of the next. A whole contiguous tensor, or a slice along its outermost
// dimension, is one run and has no dimensions. Values; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "inrush/core/plan.h"

namespace inrush {

inline constexpr uint64_t kNoByte = ~0ULL;

// Sizes up to here can be counted in bits in 64 of them. No blob of this world is larger.
inline constexpr uint64_t kLargestTensor = 1ULL << 60;

struct BoxDim {
  uint64_t count = 0;  // at least 2
  uint64_t source_pitch = 0;
  uint64_t target_pitch = 0;
  uint64_t extent = 0;  // file bytes from the first to the last of one index: <= source_pitch
  bool operator==(const BoxDim&) const = default;
};

// A dimension of stride 0: the same bytes again and again in the target.
struct BoxRepeat {
  uint64_t count = 0;  // at least 2
  uint64_t target_pitch = 0;
  bool operator==(const BoxRepeat&) const = default;
};

struct Box {
  uint32_t blob = 0;               // index into Index::blobs
  uint64_t begin = 0;              // file offset of the first byte
  uint64_t run = 0;                // bytes contiguous in file and target; 0: nothing is read
  std::vector<BoxDim> dims{};      // outermost first
  std::vector<BoxRepeat> again{};  // each piece goes to all of these places
  bool operator==(const Box&) const = default;

  // One past the last byte.
  [[nodiscard]] uint64_t end() const;
  // Bytes in the target.
  [[nodiscard]] uint64_t size() const;
};

// The box of a tensor or of a slice of it; `shape` becomes that of what is delivered. Throws
// Error{usage} for a slice that does not fit, Error{data} for a tensor that contradicts itself.
Box make_box(const TensorInfo& tensor, std::span<const SliceDim> slice,
             std::vector<uint64_t>& shape);

// The first byte of the box at or after this file offset, or kNoByte.
uint64_t first_byte_from(const Box& box, uint64_t offset);

// One past the last byte of the box that lies before this file offset; box.begin if none does.
uint64_t end_of_bytes_before(const Box& box, uint64_t offset);

// Where the pieces of a box go, and how many may go there.
struct PieceList {
  std::vector<Piece> pieces;
  uint64_t most = 0;  // one more is Error{usage}

  void append(const Piece& piece);
};

// Appends the pieces of the box that lie in file bytes [begin, end), which is a Range or a part of
// one that begins at `begin`.
void append_pieces(const Box& box, uint32_t target, uint64_t begin, uint64_t end, PieceList& list);

}  // namespace inrush
