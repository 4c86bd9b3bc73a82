#include "inrush/core/plan_box.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string>

#include "inrush/core/dtype.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

// One dimension while the box is being made: in bits, because elements may be smaller than bytes.
struct BitDim {
  uint64_t count;
  uint64_t source_pitch;
  uint64_t target_pitch;
};

[[noreturn]] void refuse(ErrorCode code, const TensorInfo& tensor, const std::string& why) {
  throw Error(code, fmt::format("plan tensor {} ({} at [{}, +{})): {}", quoted(tensor.name),
                                name_of(tensor.dtype), tensor.offset, tensor.size, why));
}

void check_slice(const TensorInfo& tensor, std::span<const SliceDim> slice) {
  if (slice.size() > tensor.shape.size()) {
    refuse(
        ErrorCode::usage, tensor,
        fmt::format("a slice of {} dimensions, but it has {}", slice.size(), tensor.shape.size()));
  }
  for (size_t i = 0; i < slice.size(); ++i) {
    const auto& [start, stop, step] = slice[i];
    if (step >= 1 && start <= stop && stop <= tensor.shape[i]) continue;
    refuse(ErrorCode::usage, tensor,
           fmt::format("the slice {}:{}:{} does not fit dimension {} of length {}", start, stop,
                       step, i, tensor.shape[i]));
  }
  if (!slice.empty() && !tensor.encoding.empty()) {
    refuse(ErrorCode::usage, tensor,
           tensor.encoding == kSecretbox
               ? std::string("it is encrypted, and what is authenticated and decrypted is the "
                             "whole of it: load it without a slice, and take the part then")
               : fmt::format("encoded as '{}', it can only be read whole", tensor.encoding));
  }
}

// Bits from one index of a dimension to the next, for each dimension. The tensor's elements must
// lie inside its bytes.
std::vector<uint64_t> source_pitches(const TensorInfo& tensor) {
  const uint64_t bits = bits_of(tensor.dtype);
  const size_t rank = tensor.shape.size();
  if (!tensor.strides.empty() && tensor.strides.size() != rank) {
    refuse(ErrorCode::data, tensor, "it has a stride for some of its dimensions only");
  }
  std::vector<uint64_t> pitches(rank);
  uint64_t last = 0;      // bits from the first element to the last
  uint64_t pitch = bits;  // of a dimension of a contiguous tensor
  for (size_t i = rank; i-- > 0;) {
    uint64_t reach = 0;
    pitches[i] = pitch;
    bool fits =
        tensor.strides.empty() || !__builtin_mul_overflow(tensor.strides[i], bits, &pitches[i]);
    fits = fits && !__builtin_mul_overflow(pitches[i], tensor.shape[i] - 1, &reach) &&
           !__builtin_add_overflow(last, reach, &last) &&
           !__builtin_mul_overflow(pitch, tensor.shape[i], &pitch) && pitch / 8 <= kLargestTensor;
    if (!fits || last >= tensor.size * 8 || last + bits > tensor.size * 8) {
      refuse(ErrorCode::data, tensor, "its shape needs more bytes than it has");
    }
  }
  return pitches;
}

uint64_t count_of(const SliceDim& dim) {
  return dim.start == dim.stop ? 0 : (dim.stop - dim.start - 1) / dim.step + 1;
}

// Joins each dimension with the one inside it where the two are one on both sides, and takes the
// innermost into the run where it is contiguous. Dimensions of one index say nothing.
uint64_t simplify(std::vector<BitDim>& dims, uint64_t run) {
  std::erase_if(dims, [](const BitDim& dim) { return dim.count == 1; });
  std::stable_sort(dims.begin(), dims.end(), [](const BitDim& a, const BitDim& b) {
    return a.source_pitch > b.source_pitch;
  });
  while (!dims.empty() && dims.back().source_pitch == run && dims.back().target_pitch == run) {
    run *= dims.back().count;
    dims.pop_back();
  }
  for (size_t i = dims.size(); i-- > 1;) {
    BitDim& outer = dims[i - 1];
    const BitDim& inner = dims[i];
    if (outer.source_pitch != inner.source_pitch * inner.count ||
        outer.target_pitch != inner.target_pitch * inner.count) {
      continue;
    }
    outer = {outer.count * inner.count, inner.source_pitch, inner.target_pitch};
    dims.erase(dims.begin() + static_cast<ptrdiff_t>(i));
  }
  return run;
}

// Takes the dimensions of stride 0 out: what they repeat is read once and placed many times.
void take_repeats(const TensorInfo& tensor, std::vector<BitDim>& dims, Box& box) {
  std::erase_if(dims, [&](const BitDim& dim) {
    if (dim.source_pitch != 0 || dim.count == 1) return false;
    if (dim.target_pitch % 8 != 0) refuse(ErrorCode::usage, tensor, "its strides cut a byte");
    box.again.push_back({dim.count, dim.target_pitch / 8});
    return true;
  });
}

// From bits to bytes, with the extents. Dimensions that do not nest cannot be walked in file order.
void set_dims(const TensorInfo& tensor, std::span<const BitDim> dims, Box& box) {
  box.dims.resize(dims.size());
  uint64_t extent = box.run;
  for (size_t i = dims.size(); i-- > 0;) {
    if (dims[i].source_pitch % 8 != 0 || dims[i].target_pitch % 8 != 0) {
      refuse(ErrorCode::usage, tensor, "the slice cuts a byte");
    }
    box.dims[i] = {dims[i].count, dims[i].source_pitch / 8, dims[i].target_pitch / 8, extent};
    if (box.dims[i].source_pitch < extent) {
      refuse(ErrorCode::data, tensor, "its strides make elements overlap");
    }
    extent += (dims[i].count - 1) * box.dims[i].source_pitch;
  }
}

Box make_sliced_box(const TensorInfo& tensor, std::span<const SliceDim> slice,
                    std::span<const uint64_t> shape) {
  const std::vector<uint64_t> pitches = source_pitches(tensor);
  const uint64_t bits = bits_of(tensor.dtype);
  std::vector<BitDim> dims(shape.size());
  uint64_t first = 0;
  uint64_t target_pitch = bits;
  for (size_t i = shape.size(); i-- > 0;) {
    const SliceDim all{0, shape[i], 1};
    const SliceDim& dim = i < slice.size() ? slice[i] : all;
    first += dim.start * pitches[i];
    const uint64_t step = shape[i] > 1 ? dim.step : 1;  // a step over everything means nothing
    dims[i] = {shape[i], pitches[i] * step, target_pitch};
    target_pitch *= shape[i];
  }
  Box box{.blob = tensor.blob};
  take_repeats(tensor, dims, box);
  const uint64_t run = simplify(dims, bits);
  if (first % 8 != 0 || run % 8 != 0) refuse(ErrorCode::usage, tensor, "the slice cuts a byte");
  box.begin = tensor.offset + first / 8;
  box.run = run / 8;
  set_dims(tensor, dims, box);
  return box;
}

uint64_t first_from(const Box& box, size_t depth, uint64_t offset) {
  if (depth == box.dims.size()) return offset < box.run ? offset : kNoByte;
  const BoxDim& dim = box.dims[depth];
  const uint64_t index = offset / dim.source_pitch;
  if (index >= dim.count) return kNoByte;
  const uint64_t start = index * dim.source_pitch;
  const uint64_t inside = first_from(box, depth + 1, offset - start);
  if (inside != kNoByte) return start + inside;
  return index + 1 < dim.count ? start + dim.source_pitch : kNoByte;
}

// `offset` is at least 1, so there is always a byte before it.
uint64_t end_before(const Box& box, size_t depth, uint64_t offset) {
  if (depth == box.dims.size()) return std::min(offset, box.run);
  const BoxDim& dim = box.dims[depth];
  const uint64_t index = std::min((offset - 1) / dim.source_pitch, dim.count - 1);
  const uint64_t start = index * dim.source_pitch;
  return start + end_before(box, depth + 1, std::min(offset - start, dim.extent));
}

// Cuts the pieces of one box out of one window of the file.
class Cutter {
 public:
  Cutter(const Box& box, uint32_t target, PieceList& list) : box_(box), list_(list) {
    piece_.target = target;
    piece_.row_size = box.run;
  }

  // The bytes [begin, end) of the part of the box at this depth. `source` and `to` are where that
  // part begins, from the window's first byte (it may lie before: then `source` wraps and the sum
  // with `begin` is right again) and from the target's first byte.
  void cut(size_t depth, uint64_t begin, uint64_t end, uint64_t source, uint64_t to) {
    if (depth == box_.dims.size()) {
      end = std::min(end, box_.run);
      if (begin >= end) return;
      append({piece_.target, 1, end - begin, source + begin, 0, to + begin, 0}, 0);
      return;
    }
    const BoxDim& dim = box_.dims[depth];
    uint64_t index = begin / dim.source_pitch;
    uint64_t last = std::min((end - 1) / dim.source_pitch, dim.count - 1);
    const uint64_t lead = begin - index * dim.source_pitch;
    const uint64_t trail = end - last * dim.source_pitch;
    const bool tail = trail < dim.extent;
    if (lead > 0 || (tail && index == last)) {
      if (lead < dim.extent) {
        const uint64_t stop = index == last ? std::min(trail, dim.extent) : dim.extent;
        cut(depth + 1, lead, stop, source + index * dim.source_pitch,
            to + index * dim.target_pitch);
      }
      if (index++ == last) return;
    }
    const uint64_t whole = last - index + (tail ? 0 : 1);
    if (whole > 0) {
      fill(depth, whole, source + index * dim.source_pitch, to + index * dim.target_pitch);
    }
    if (tail) {
      cut(depth + 1, 0, trail, source + last * dim.source_pitch, to + last * dim.target_pitch);
    }
  }

 private:
  // `count` whole indices of the dimension at this depth. The longest dimension becomes the rows
  // of the pieces; the others are walked.
  void fill(size_t depth, uint64_t count, uint64_t source, uint64_t to) {
    const auto count_at = [&](size_t i) { return i == depth ? count : box_.dims[i].count; };
    size_t rows = depth;
    for (size_t i = depth; i < box_.dims.size(); ++i) {
      if (count_at(i) >= count_at(rows)) rows = i;
    }
    piece_.rows = static_cast<uint32_t>(count_at(rows));
    piece_.source_pitch = piece_.rows > 1 ? box_.dims[rows].source_pitch : 0;
    piece_.target_pitch = piece_.rows > 1 ? box_.dims[rows].target_pitch : 0;
    walk(depth, rows, count, source, to);
  }

  // Visits every index of the dimensions from `depth` on, but for `rows`; `count` belongs to the
  // outermost of them only.
  void walk(size_t depth, size_t rows, uint64_t count, uint64_t source, uint64_t to) {
    if (depth == rows && ++depth < box_.dims.size()) count = box_.dims[depth].count;
    if (depth == box_.dims.size()) {
      piece_.source_offset = source;
      piece_.target_offset = to;
      append(piece_, 0);
      return;
    }
    const BoxDim& dim = box_.dims[depth];
    const uint64_t inner = depth + 1 < box_.dims.size() ? box_.dims[depth + 1].count : 0;
    for (uint64_t i = 0; i < count; ++i) {
      walk(depth + 1, rows, inner, source + i * dim.source_pitch, to + i * dim.target_pitch);
    }
  }

  // The piece at every place where it stands in the target.
  void append(Piece piece, size_t depth) {
    if (depth == box_.again.size()) {
      list_.append(piece);
      return;
    }
    const auto& [count, pitch] = box_.again[depth];
    if (depth + 1 == box_.again.size() && piece.rows == 1 && count <= UINT32_MAX) {
      piece.rows = static_cast<uint32_t>(count);
      piece.target_pitch = pitch;
      list_.append(piece);
      return;
    }
    for (uint64_t i = 0; i < count; ++i) {
      append(piece, depth + 1);
      piece.target_offset += pitch;
    }
  }

  const Box& box_;
  PieceList& list_;
  Piece piece_;
};

}  // namespace

uint64_t Box::end() const {
  if (dims.empty()) return begin + run;
  return begin + (dims[0].count - 1) * dims[0].source_pitch + dims[0].extent;
}

uint64_t Box::size() const {
  uint64_t size = run;
  for (const BoxDim& dim : dims) size *= dim.count;
  for (const BoxRepeat& repeat : again) size *= repeat.count;
  return size;
}

Box make_box(const TensorInfo& tensor, std::span<const SliceDim> slice,
             std::vector<uint64_t>& shape) {
  if (tensor.size > kLargestTensor || tensor.offset > kLargestTensor) {
    refuse(ErrorCode::data, tensor, "no file is that long");
  }
  check_slice(tensor, slice);
  shape = tensor.shape;
  if (tensor.encoding == kZeros) return {.blob = tensor.blob, .begin = tensor.offset};
  if (slice.empty() && tensor.strides.empty()) {
    return {.blob = tensor.blob, .begin = tensor.offset, .run = tensor.size};
  }
  for (size_t i = 0; i < slice.size(); ++i) shape[i] = count_of(slice[i]);
  const auto empty = [](std::span<const uint64_t> counts) {
    return std::find(counts.begin(), counts.end(), 0) != counts.end();
  };
  if (empty(tensor.shape) || empty(shape)) return {.blob = tensor.blob, .begin = tensor.offset};
  return make_sliced_box(tensor, slice, shape);
}

uint64_t first_byte_from(const Box& box, uint64_t offset) {
  if (box.run == 0) return kNoByte;
  const uint64_t inside = first_from(box, 0, offset < box.begin ? 0 : offset - box.begin);
  return inside == kNoByte ? kNoByte : box.begin + inside;
}

uint64_t end_of_bytes_before(const Box& box, uint64_t offset) {
  if (box.run == 0 || offset <= box.begin) return box.begin;
  return box.begin + end_before(box, 0, offset - box.begin);
}

void PieceList::append(const Piece& piece) {
  if (pieces.size() >= most) {
    throw Error(ErrorCode::usage,
                "plan: the slices fall into more ranges and pieces than largest_plan allows; cut "
                "along outer dimensions");
  }
  pieces.push_back(piece);
}

void append_pieces(const Box& box, uint32_t target, uint64_t begin, uint64_t end, PieceList& list) {
  const uint64_t first = std::max(begin, box.begin);
  end = std::min(end, box.end());
  if (first >= end) return;
  Cutter(box, target, list).cut(0, first - box.begin, end - box.begin, box.begin - begin, 0);
}

}  // namespace inrush
