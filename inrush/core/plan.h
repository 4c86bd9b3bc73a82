// The Plan: which byte ranges to read, in which order, and where each part of them lands, for
// several consumers at once. Pure: it depends on no fact of this machine, so equal inputs give an
// equal digest() on every rank. Immutable once made; any thread may read it.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/index.h"

namespace inrush {

// start:stop:step along one dimension, already normalised: 0 <= start <= stop <= length, step >= 1.
struct SliceDim {
  uint64_t start = 0;
  uint64_t stop = 0;
  uint64_t step = 1;
};

// What one consumer (rank, device, module) wants, in the order it wants it.
struct Want {
  uint32_t tensor = 0;            // index into Index::tensors
  std::vector<SliceDim> slice{};  // empty: all of it; else one per leading dimension
};

struct Selection {
  std::vector<Want> wants;
};

struct PlanLimits {
  uint64_t range_size = 1ULL << 20;    // ranges are cut at multiples of this file offset; <= 2 GiB
  uint64_t merge_gap = 64ULL << 10;    // unwanted bytes between neighbours that are read anyway
  uint64_t largest_plan = 1ULL << 26;  // most ranges + pieces; more is Error{usage}
};

// Where (part of) a range lands: rows x row_size bytes, with a pitch on either side. One row is a
// plain copy; many rows are a slice along an inner dimension.
struct Piece {
  uint32_t target = 0;  // index into Plan::targets
  uint32_t rows = 1;
  uint64_t row_size = 0;       // bytes
  uint64_t source_offset = 0;  // of the first row, from the range's first byte
  uint64_t source_pitch = 0;   // between rows; 0 with one row, or where all rows are one
  uint64_t target_offset = 0;  // of the first row, from the target's first byte
  uint64_t target_pitch = 0;
};

struct Range {
  uint32_t blob = 0;
  uint64_t offset = 0;  // bytes, any alignment: exactly from the first to the last wanted byte
  uint64_t size = 0;
  uint64_t slack_before = 0;  // unwanted bytes before it that no other range covers
  uint64_t slack_after = 0;
  uint32_t first_piece = 0;  // pieces [first_piece, first_piece + piece_count)
  uint32_t piece_count = 0;
};

// One tensor (or slice of one) for one consumer: what is delivered.
struct Target {
  uint32_t consumer = 0;
  uint32_t tensor = 0;          // index into Index::tensors
  std::vector<uint64_t> shape;  // of what is delivered
  uint64_t size = 0;            // bytes delivered
  bool contiguous = true;       // its bytes are one run of the file, starting at file_offset
  uint64_t file_offset = 0;     // where contiguous
  uint32_t first_range = 0;     // ranges [first_range, last_range] hold its pieces;
  uint32_t last_range = 0;      // first > last: it has no bytes
};

struct Plan {
  std::vector<Range> ranges;  // in delivery order
  std::vector<Piece> pieces;
  std::vector<Target> targets;   // in delivery order
  uint64_t bytes_read = 0;       // sum of range sizes
  uint64_t bytes_delivered = 0;  // sum of target sizes

  // SHA-256 in hex over every field above.
  [[nodiscard]] std::string digest() const;
};

// Throws Error{usage} for a slice that does not fit its tensor, or that cuts a byte of packed
// sub-byte elements, and for a plan over the limits; Error{data} for a tensor outside its blob.
// Consumers whose wants all stand in file order (the default) are served together in file order,
// and the ranges stand in file order too; else consumers take turns, one want each, and a range
// comes with the first target that needs it. What is delivered is in C order, whatever the strides.
Plan make_plan(const Index& index, std::span<const Selection> selections,
               const PlanLimits& limits = {});

}  // namespace inrush
