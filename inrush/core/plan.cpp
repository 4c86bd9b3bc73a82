#include "inrush/core/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <tuple>

#include "inrush/core/error.h"
#include "inrush/core/plan_box.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

constexpr uint32_t kUnset = std::numeric_limits<uint32_t>::max();

// Rows of a piece are counted in 32 bits, and a range has at most a row a byte.
constexpr uint64_t kLargestRange = 1ULL << 31;

// Ranges and pieces are numbered in 32 bits.
constexpr uint64_t kLargestPlan = kUnset - 1;

// The bytes of one target within one block (a multiple of range_size): holes inside it are at
// most merge_gap, its first and last byte are wanted.
struct Chunk {
  uint64_t begin;
  uint64_t end;
  uint64_t turn;  // bytes delivered before it, were every tensor delivered whole
  uint32_t blob;
};

[[noreturn]] void refuse_size() {
  throw Error(ErrorCode::usage,
              "plan: more ranges and pieces than largest_plan allows; raise range_size, or slice "
              "along outer dimensions");
}

class Planner {
 public:
  Planner(const Index& index, std::span<const Selection> selections, const PlanLimits& limits);
  Plan run();

 private:
  struct Turn {
    uint32_t consumer;
    uint32_t position;
  };

  std::vector<Turn> delivery_order() const;
  void add_target(const Turn& turn);
  void collect_chunks();
  void add_chunks(const Box& box, uint64_t turn);
  void join_chunks();
  void measure_slack();
  void deal_pieces();
  uint32_t range_at(uint32_t blob, uint64_t offset);
  void group_pieces();

  const TensorInfo& tensor_of(const Target& target) const { return index_.tensors[target.tensor]; }

  const Index& index_;
  std::span<const Selection> selections_;
  PlanLimits limits_;
  Plan plan_;
  std::vector<Box> boxes_;       // of each target
  std::vector<uint64_t> turns_;  // of each target's first byte: see Chunk
  uint64_t next_turn_ = 0;
  std::vector<Chunk> chunks_;       // in file order, once all are there
  std::vector<Range> ranges_;       // in file order
  std::vector<uint32_t> delivery_;  // for each of ranges_: its index in plan_.ranges
  std::vector<uint32_t> owners_;    // of each piece: its index in ranges_
  PieceList pieces_;
  uint32_t last_found_ = 0;
};

Planner::Planner(const Index& index, std::span<const Selection> selections,
                 const PlanLimits& limits)
    : index_(index), selections_(selections), limits_(limits) {
  limits_.largest_plan = std::min(limits_.largest_plan, kLargestPlan);
  if (limits_.range_size == 0 || limits_.range_size > kLargestRange) {
    throw Error(ErrorCode::usage, fmt::format("plan: a range_size of {} bytes is not in [1, {}]",
                                              limits_.range_size, kLargestRange));
  }
}

Plan Planner::run() {
  const std::vector<Turn> order = delivery_order();
  plan_.targets.reserve(order.size());
  boxes_.reserve(order.size());
  turns_.reserve(order.size());
  for (const Turn& turn : order) add_target(turn);
  collect_chunks();
  join_chunks();
  measure_slack();
  deal_pieces();
  group_pieces();
  return std::move(plan_);
}

// Consumers that all want their tensors in file order are served in file order together. Else
// they take turns: the first want of each, the second of each, and so on.
std::vector<Planner::Turn> Planner::delivery_order() const {
  std::vector<Turn> order;
  bool in_file_order = true;
  for (uint32_t consumer = 0; consumer < selections_.size(); ++consumer) {
    const std::vector<Want>& wants = selections_[consumer].wants;
    if (order.size() + wants.size() > limits_.largest_plan) refuse_size();
    for (uint32_t i = 0; i < wants.size(); ++i) {
      if (wants[i].tensor >= index_.tensors.size()) {
        throw Error(ErrorCode::usage,
                    fmt::format("plan: consumer {} wants tensor {} of {}", consumer,
                                wants[i].tensor, index_.tensors.size()));
      }
      in_file_order = in_file_order && (i == 0 || wants[i - 1].tensor <= wants[i].tensor);
      order.push_back({consumer, i});
    }
  }
  if (selections_.size() <= 1) return order;
  const auto rank = [&](const Turn& turn) {
    return in_file_order ? selections_[turn.consumer].wants[turn.position].tensor : turn.position;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const Turn& a, const Turn& b) { return rank(a) < rank(b); });
  return order;
}

void Planner::add_target(const Turn& turn) {
  const Want& want = selections_[turn.consumer].wants[turn.position];
  const TensorInfo& tensor = index_.tensors[want.tensor];
  Target& target = plan_.targets.emplace_back();
  target.consumer = turn.consumer;
  target.tensor = want.tensor;
  try {
    boxes_.push_back(make_box(tensor, want.slice, target.shape));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::data || tensor.blob >= index_.blobs.size()) throw;
    throw Error(error.code(), error.message() + ", in " + index_.blobs[tensor.blob].name);
  }
  const Box& box = boxes_.back();
  const uint64_t blob_size = tensor.blob < index_.blobs.size() ? index_.blobs[tensor.blob].size : 0;
  if (tensor.blob >= index_.blobs.size() || box.end() > blob_size) {
    throw Error(ErrorCode::data,
                fmt::format("plan tensor {}: its bytes [{}, +{}) lie outside {}, which has {}",
                            quoted(tensor.name), tensor.offset, tensor.size,
                            tensor.blob < index_.blobs.size() ? index_.blobs[tensor.blob].name
                                                              : "every blob",
                            blob_size));
  }
  const bool zeros = tensor.encoding == kZeros;
  target.size = zeros ? delivered_size(tensor) : box.size();
  if (zeros && target.size > kLargestTensor) {
    throw Error(ErrorCode::data,
                fmt::format("plan tensor {}: {} bytes of zeros", quoted(tensor.name), target.size));
  }
  target.contiguous = box.dims.empty() && box.again.empty() && !zeros;
  target.file_offset = box.begin;
  target.first_range = 1;                // until it has a piece
  plan_.bytes_delivered += target.size;  // before it overflowed, add_chunks would refuse
  // Neighbours that want one tensor are served together: their turns begin alike.
  const size_t i = boxes_.size() - 1;
  if (i > 0 && plan_.targets[i - 1].tensor != want.tensor) {
    next_turn_ += index_.tensors[plan_.targets[i - 1].tensor].size;
  }
  turns_.push_back(next_turn_ + (box.begin - tensor.offset));
}

void Planner::collect_chunks() {
  for (size_t i = 0; i < boxes_.size(); ++i) {
    const bool again = i > 0 && plan_.targets[i - 1].tensor == plan_.targets[i].tensor;
    if (boxes_[i].run == 0 || (again && boxes_[i] == boxes_[i - 1])) continue;
    add_chunks(boxes_[i], turns_[i]);
  }
  const auto key = [](const Chunk& chunk) {
    return std::tuple(chunk.blob, chunk.begin, chunk.turn, chunk.end);
  };
  const auto before = [&](const Chunk& a, const Chunk& b) { return key(a) < key(b); };
  if (!std::is_sorted(chunks_.begin(), chunks_.end(), before)) {
    std::sort(chunks_.begin(), chunks_.end(), before);
  }
}

// Cuts the box at blocks and at holes wider than merge_gap.
void Planner::add_chunks(const Box& box, uint64_t turn) {
  const uint64_t room = limits_.largest_plan - chunks_.size();
  if (box.size() / limits_.range_size > room) refuse_size();
  // Dimensions from `dense` on have holes that are read over.
  size_t dense = box.dims.size();
  while (dense > 0 &&
         box.dims[dense - 1].source_pitch - box.dims[dense - 1].extent <= limits_.merge_gap) {
    --dense;
  }
  const uint64_t extent = dense > 0 ? box.dims[dense - 1].extent : box.end() - box.begin;
  uint64_t span_end = box.begin + extent;
  for (uint64_t begin = box.begin; begin != kNoByte;) {
    if (begin >= span_end) span_end = begin + extent;
    const uint64_t block_end = begin - begin % limits_.range_size + limits_.range_size;
    const uint64_t stop = std::min(block_end, span_end);
    if (chunks_.size() >= limits_.largest_plan) refuse_size();
    chunks_.push_back(
        {begin, end_of_bytes_before(box, stop), turn + (begin - box.begin), box.blob});
    begin = first_byte_from(box, stop);
  }
}

// Chunks of one block become one range where little lies between them and they are wanted at about
// the same time. The latter keeps a load in any given order streaming: without it, a range would be
// held in memory for a tensor at its end that is wanted last of all.
void Planner::join_chunks() {
  uint64_t first_turn = 0;
  uint64_t last_turn = 0;
  for (const Chunk& chunk : chunks_) {
    Range* range = ranges_.empty() ? nullptr : &ranges_.back();
    const uint64_t end = range == nullptr ? 0 : range->offset + range->size;
    if (range == nullptr || range->blob != chunk.blob ||
        range->offset / limits_.range_size != chunk.begin / limits_.range_size) {
      range = nullptr;
    } else if (chunk.end <= end) {
      continue;
    } else if (chunk.begin >= end) {  // else they overlap, and bytes are read once
      const uint64_t spread = std::max(last_turn, chunk.turn) - std::min(first_turn, chunk.turn);
      if (chunk.begin - end > limits_.merge_gap || spread > limits_.range_size) range = nullptr;
    }
    if (range == nullptr) {
      ranges_.push_back({.blob = chunk.blob, .offset = chunk.begin});
      range = &ranges_.back();
      first_turn = last_turn = chunk.turn;
    }
    range->size = chunk.end - range->offset;
    first_turn = std::min(first_turn, chunk.turn);
    last_turn = std::max(last_turn, chunk.turn);
  }
  chunks_ = {};
}

void Planner::measure_slack() {
  for (size_t i = 0; i < ranges_.size(); ++i) {
    Range& range = ranges_[i];
    const bool first = i == 0 || ranges_[i - 1].blob != range.blob;
    const bool last = i + 1 == ranges_.size() || ranges_[i + 1].blob != range.blob;
    const uint64_t before = first ? 0 : ranges_[i - 1].offset + ranges_[i - 1].size;
    const uint64_t after = last ? index_.blobs[range.blob].size : ranges_[i + 1].offset;
    range.slack_before = range.offset - before;
    range.slack_after = after - (range.offset + range.size);
    plan_.bytes_read += range.size;
  }
}

// Gives every target its pieces, and every range its place in the delivery: by the first target
// that needs it, and in file order among targets that want one tensor.
void Planner::deal_pieces() {
  pieces_.most = limits_.largest_plan - std::min(limits_.largest_plan, uint64_t{ranges_.size()});
  pieces_.pieces.reserve(ranges_.size() + boxes_.size());
  owners_.reserve(ranges_.size() + boxes_.size());
  delivery_.assign(ranges_.size(), kUnset);
  plan_.ranges.reserve(ranges_.size());
  std::vector<uint32_t> fresh;  // ranges first needed by the tensor at hand
  for (uint32_t i = 0; i < boxes_.size(); ++i) {
    const Box& box = boxes_[i];
    for (uint64_t at = first_byte_from(box, box.begin); at != kNoByte;) {
      const uint32_t owner = range_at(box.blob, at);
      const Range& range = ranges_[owner];
      if (delivery_[owner] == kUnset) {
        delivery_[owner] = 0;
        fresh.push_back(owner);
      }
      append_pieces(box, i, range.offset, range.offset + range.size, pieces_);
      owners_.resize(pieces_.pieces.size(), owner);
      at = first_byte_from(box, range.offset + range.size);
    }
    if (i + 1 < boxes_.size() && plan_.targets[i + 1].tensor == plan_.targets[i].tensor) continue;
    std::sort(fresh.begin(), fresh.end());
    for (const uint32_t owner : fresh) {
      delivery_[owner] = static_cast<uint32_t>(plan_.ranges.size());
      plan_.ranges.push_back(ranges_[owner]);
    }
    fresh.clear();
  }
}

// The range that holds this byte. Mostly the one found last, or the one after it.
uint32_t Planner::range_at(uint32_t blob, uint64_t offset) {
  const auto holds = [&](size_t i) {
    return i < ranges_.size() && ranges_[i].blob == blob && ranges_[i].offset <= offset &&
           offset - ranges_[i].offset < ranges_[i].size;
  };
  if (holds(last_found_)) return last_found_;
  if (holds(last_found_ + 1)) return ++last_found_;
  const auto after = std::upper_bound(
      ranges_.begin(), ranges_.end(), std::pair(blob, offset),
      [](const auto& key, const Range& r) { return key < std::pair(r.blob, r.offset); });
  last_found_ = static_cast<uint32_t>(after - ranges_.begin() - 1);
  assert(holds(last_found_));
  return last_found_;
}

// Puts the pieces of each range side by side, in the order of their targets.
void Planner::group_pieces() {
  std::vector<Piece>& pieces = pieces_.pieces;
  bool grouped = true;
  for (size_t i = 0; i < pieces.size(); ++i) {
    owners_[i] = delivery_[owners_[i]];
    grouped = grouped && (i == 0 || owners_[i - 1] <= owners_[i]);
    ++plan_.ranges[owners_[i]].piece_count;
    Target& target = plan_.targets[pieces[i].target];
    const bool first = target.first_range > target.last_range;
    target.first_range = first ? owners_[i] : std::min(target.first_range, owners_[i]);
    target.last_range = first ? owners_[i] : std::max(target.last_range, owners_[i]);
  }
  uint32_t next = 0;
  for (Range& range : plan_.ranges) {
    range.first_piece = next;
    next += range.piece_count;
  }
  if (grouped) {
    plan_.pieces = std::move(pieces);
    return;
  }
  plan_.pieces.resize(pieces.size());
  std::vector<uint32_t> taken(plan_.ranges.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    plan_.pieces[plan_.ranges[owners_[i]].first_piece + taken[owners_[i]]++] = pieces[i];
  }
}

}  // namespace

Plan make_plan(const Index& index, std::span<const Selection> selections,
               const PlanLimits& limits) {
  return Planner(index, selections, limits).run();
}

}  // namespace inrush
