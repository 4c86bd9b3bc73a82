#include "inrush/core/plan.h"
#include "inrush/core/sha256.h"

namespace inrush {

std::string Plan::digest() const {
  Sha256 hash;
  hash.add("inrush plan 1\n");
  hash.add(ranges.size());
  for (const Range& range : ranges) {
    for (const uint64_t field :
         {uint64_t{range.blob}, range.offset, range.size, range.slack_before, range.slack_after,
          uint64_t{range.first_piece}, uint64_t{range.piece_count}}) {
      hash.add(field);
    }
  }
  hash.add(pieces.size());
  for (const Piece& piece : pieces) {
    for (const uint64_t field :
         {uint64_t{piece.target}, uint64_t{piece.rows}, piece.row_size, piece.source_offset,
          piece.source_pitch, piece.target_offset, piece.target_pitch}) {
      hash.add(field);
    }
  }
  hash.add(targets.size());
  for (const Target& target : targets) {
    hash.add(target.shape.size());
    for (const uint64_t length : target.shape) hash.add(length);
    for (const uint64_t field : {uint64_t{target.consumer}, uint64_t{target.tensor}, target.size,
                                 uint64_t{target.contiguous}, target.file_offset,
                                 uint64_t{target.first_range}, uint64_t{target.last_range}}) {
      hash.add(field);
    }
  }
  hash.add(bytes_read);
  hash.add(bytes_delivered);
  return hash.finish();
}

}  // namespace inrush
