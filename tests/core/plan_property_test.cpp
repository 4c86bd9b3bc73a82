// Whatever is wanted, in whatever order, by however many consumers: the plan delivers exactly that.
// Each case is made from one seed, which a failure prints.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "inrush/core/plan.h"
#include "tests/core/plan_naive.h"

namespace inrush {
namespace {

using naive::Bytes;

struct Case {
  Index index;
  std::vector<Bytes> blobs;
  std::vector<Selection> selections;
  PlanLimits limits;
  bool in_file_order = true;  // of every selection
};

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  Case make() {
    Case made;
    constexpr uint64_t kRangeSizes[] = {1, 7, 64, 100, 512, 4096, 1 << 20};
    constexpr uint64_t kGaps[] = {0, 1, 8, 40, 300, 5000};
    made.limits.range_size = kRangeSizes[below(std::size(kRangeSizes))];
    made.limits.merge_gap = kGaps[below(std::size(kGaps))];
    const uint64_t blobs = 1 + below(3);
    for (uint32_t blob = 0; blob < blobs; ++blob) add_blob(made, blob);
    const uint64_t consumers = 1 + below(8);
    const bool same = below(4) == 0;  // data parallel: all want the same
    const uint64_t ways = below(3);   // tensor parallel: rows, columns, or each as it likes
    made.in_file_order = below(2) == 0;
    for (uint64_t i = 0; i < consumers; ++i) {
      made.selections.push_back(same && i > 0 ? made.selections[0]
                                              : selection(made, i, consumers, ways));
    }
    return made;
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }

  void add_blob(Case& made, uint32_t blob) {
    uint64_t offset = below(100);
    const uint64_t tensors = below(8);
    for (uint64_t i = 0; i < tensors; ++i) {
      TensorInfo info;
      info.name = fmt::format("{}.{}", blob, i);
      info.dtype = static_cast<Dtype>(below(kDtypeCount));
      info.blob = blob;
      const uint64_t rank = below(5);
      for (uint64_t d = 0; d < rank; ++d) {
        info.shape.push_back(below(16) == 0 ? below(2) : 1 + below(rank < 3 ? 20 : 7));
      }
      if (bits_of(info.dtype) < 8) info.shape.push_back(4 * (1 + below(4)));  // whole bytes
      const uint64_t bits = bits_of(info.dtype);
      uint64_t size = bits;
      for (const uint64_t length : info.shape) size *= length;
      info.size = size / 8;
      if (rank > 1 && bits >= 8 && below(8) == 0) transpose(info);
      if (below(3) == 0) offset += below(400);
      info.offset = offset;
      offset += info.size;
      made.index.tensors.push_back(info);
    }
    Bytes bytes(offset + below(50));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_());
    made.index.blobs.push_back({fmt::format("{}.safetensors", blob), bytes.size(), {}, -1, {}});
    made.blobs.push_back(std::move(bytes));
  }

  // The same bytes seen with the dimensions in another order.
  void transpose(TensorInfo& info) {
    std::vector<uint64_t> strides(info.shape.size());
    uint64_t stride = 1;
    for (size_t i = strides.size(); i-- > 0;) {
      strides[i] = stride;
      stride *= info.shape[i];
    }
    const auto by = static_cast<ptrdiff_t>(1 + below(strides.size() - 1));
    std::rotate(strides.begin(), strides.begin() + by, strides.end());
    std::rotate(info.shape.begin(), info.shape.begin() + by, info.shape.end());
    info.strides = strides;
    if (below(3) == 0) info.strides[below(strides.size())] = 0;  // expanded
  }

  Selection selection(const Case& made, uint64_t consumer, uint64_t consumers, uint64_t ways) {
    Selection selection;
    for (uint32_t i = 0; i < made.index.tensors.size(); ++i) {
      if (ways == 2 && below(3) == 0) continue;
      Want want{i};
      const TensorInfo& tensor = made.index.tensors[i];
      if (ways < 2 && tensor.shape.size() > ways && bits_of(tensor.dtype) >= 8) {
        for (uint64_t d = 0; d < ways; ++d) want.slice.push_back({0, tensor.shape[d], 1});
        const uint64_t length = tensor.shape[ways];
        want.slice.push_back({length * consumer / consumers, length * (consumer + 1) / consumers});
      } else if (ways == 2 && below(2) == 0) {
        want.slice = any_slice(tensor);
      }
      selection.wants.push_back(want);
      if (ways == 2 && below(10) == 0) selection.wants.push_back({i, any_slice(tensor)});
    }
    if (!made.in_file_order) {
      std::shuffle(selection.wants.begin(), selection.wants.end(), random_);
    }
    return selection;
  }

  std::vector<SliceDim> any_slice(const TensorInfo& tensor) {
    std::vector<SliceDim> slice;
    const uint64_t dims = below(tensor.shape.size() + 1);
    for (uint64_t d = 0; d < dims; ++d) {
      const uint64_t length = tensor.shape[d];
      // Packed elements are taken by whole rows.
      if (bits_of(tensor.dtype) < 8 && d + 1 == tensor.shape.size()) {
        slice.push_back({0, length, 1});
        continue;
      }
      const uint64_t start = below(length + 1);
      const uint64_t stop = start + below(length - start + 1);
      slice.push_back({start, stop, below(3) == 0 ? 1 + below(length + 2) : 1});
    }
    return slice;
  }

  std::mt19937_64 random_;
};

// What is wanted of each byte of each blob.
std::vector<std::vector<bool>> wanted_bytes(const Case& c) {
  std::vector<std::vector<bool>> wanted;
  for (const Bytes& blob : c.blobs) wanted.emplace_back(blob.size());
  for (const Selection& selection : c.selections) {
    for (const Want& want : selection.wants) {
      const TensorInfo& tensor = c.index.tensors[want.tensor];
      for (const uint64_t bit : naive::wanted_bits(tensor, want)) {
        wanted[tensor.blob][bit / 8] = true;
      }
    }
  }
  return wanted;
}

// The wants of each consumer, in the order in which its targets stand in the plan.
void expect_delivered(const Case& c, const Plan& plan) {
  std::vector<Bytes> memory;
  std::vector<std::vector<int>> writes;
  for (const Target& target : plan.targets) {
    memory.emplace_back(target.size);
    writes.emplace_back(target.size);
  }
  for (const Range& range : plan.ranges) {
    ASSERT_LE(range.offset + range.size, c.blobs[range.blob].size());
    for (uint32_t i = 0; i < range.piece_count; ++i) {
      const Piece& piece = plan.pieces[range.first_piece + i];
      naive::each_byte(piece, [&](uint64_t source, uint64_t target) {
        ASSERT_LT(source, range.size);
        ASSERT_LT(target, memory[piece.target].size());
        memory[piece.target][target] = c.blobs[range.blob][range.offset + source];
        ++writes[piece.target][target];
      });
    }
  }
  std::vector<size_t> taken(c.selections.size());
  uint64_t delivered = 0;
  for (size_t i = 0; i < plan.targets.size(); ++i) {
    const Target& target = plan.targets[i];
    const Want& want = c.selections[target.consumer].wants[taken[target.consumer]++];
    const TensorInfo& tensor = c.index.tensors[want.tensor];
    ASSERT_EQ(target.tensor, want.tensor);
    ASSERT_EQ(memory[i], naive::slice(c.blobs[tensor.blob], tensor, want)) << "target " << i;
    ASSERT_TRUE(std::ranges::all_of(writes[i], [](int n) { return n == 1; })) << "target " << i;
    for (size_t d = 0; d < target.shape.size(); ++d) {
      const SliceDim dim = d < want.slice.size() ? want.slice[d] : SliceDim{0, tensor.shape[d], 1};
      ASSERT_EQ(target.shape[d], (dim.stop - dim.start + dim.step - 1) / dim.step);
    }
    if (target.contiguous && target.size > 0) {
      const uint8_t* bytes = &c.blobs[tensor.blob][target.file_offset];
      ASSERT_TRUE(std::equal(memory[i].begin(), memory[i].end(), bytes));
    }
    delivered += target.size;
  }
  for (size_t i = 0; i < taken.size(); ++i) ASSERT_EQ(taken[i], c.selections[i].wants.size());
  ASSERT_EQ(plan.bytes_delivered, delivered);
}

// Disjoint, within a block, no larger than wanted bytes and small gaps need, with true slack.
void expect_ranges_sound(const Case& c, const Plan& plan) {
  const auto wanted = wanted_bytes(c);
  std::vector<std::vector<bool>> read;
  for (const Bytes& blob : c.blobs) read.emplace_back(blob.size());
  uint64_t bytes_read = 0;
  uint32_t next_piece = 0;
  Range previous;
  previous.blob = ~0U;
  for (const Range& range : plan.ranges) {
    const uint64_t end = range.offset + range.size;
    ASSERT_GT(range.size, 0);
    ASSERT_GT(range.piece_count, 0);
    ASSERT_EQ(range.first_piece, next_piece);
    next_piece += range.piece_count;
    ASSERT_EQ(range.offset / c.limits.range_size, (end - 1) / c.limits.range_size);
    ASSERT_TRUE(wanted[range.blob][range.offset]);
    ASSERT_TRUE(wanted[range.blob][end - 1]);
    uint64_t hole = 0;
    for (uint64_t at = range.offset; at < end; ++at) {
      ASSERT_FALSE(read[range.blob][at]) << "read twice";
      read[range.blob][at] = true;
      hole = wanted[range.blob][at] ? 0 : hole + 1;
      ASSERT_LE(hole, c.limits.merge_gap);
    }
    bytes_read += range.size;
    const bool joined =
        previous.blob != range.blob ||
        previous.offset / c.limits.range_size != range.offset / c.limits.range_size ||
        range.slack_before > c.limits.merge_gap;
    ASSERT_TRUE(joined || !c.in_file_order) << "neighbours apart";
    previous = range;
  }
  ASSERT_EQ(next_piece, plan.pieces.size());
  ASSERT_EQ(plan.bytes_read, bytes_read);
  for (size_t blob = 0; blob < wanted.size(); ++blob) {
    for (size_t at = 0; at < wanted[blob].size(); ++at) {
      ASSERT_TRUE(read[blob][at] || !wanted[blob][at]) << "not read";
    }
  }
  for (const Range& range : plan.ranges) {
    uint64_t before = range.offset;
    while (before > 0 && !read[range.blob][before - 1]) --before;
    uint64_t after = range.offset + range.size;
    while (after < read[range.blob].size() && !read[range.blob][after]) ++after;
    ASSERT_EQ(range.slack_before, range.offset - before);
    ASSERT_EQ(range.slack_after, after - (range.offset + range.size));
  }
}

void expect_order(const Case& c, const Plan& plan) {
  std::vector<uint32_t> first(plan.targets.size(), 1);
  std::vector<uint32_t> last(plan.targets.size(), 0);
  std::vector<uint32_t> group(plan.targets.size());  // neighbours that want one tensor
  for (uint32_t i = 1; i < group.size(); ++i) {
    group[i] = plan.targets[i].tensor == plan.targets[i - 1].tensor ? group[i - 1] : i;
  }
  std::pair<uint32_t, std::pair<uint32_t, uint64_t>> previous{};
  for (uint32_t r = 0; r < plan.ranges.size(); ++r) {
    const Range& range = plan.ranges[r];
    uint32_t needed = ~0U;
    for (uint32_t i = 0; i < range.piece_count; ++i) {
      const uint32_t target = plan.pieces[range.first_piece + i].target;
      ASSERT_TRUE(i == 0 || plan.pieces[range.first_piece + i - 1].target <= target);
      needed = std::min(needed, group[target]);
      first[target] = first[target] > last[target] ? r : first[target];
      last[target] = r;
    }
    const std::pair key(needed, std::pair(range.blob, range.offset));
    ASSERT_TRUE(r == 0 || previous < key) << "range " << r;
    ASSERT_TRUE(r == 0 || !c.in_file_order || previous.second < key.second) << "range " << r;
    previous = key;
  }
  for (size_t i = 0; i < plan.targets.size(); ++i) {
    ASSERT_EQ(plan.targets[i].first_range, first[i]) << "target " << i;
    ASSERT_EQ(plan.targets[i].last_range, last[i]) << "target " << i;
  }
}

// What must be held for later targets once a target is whole stays small in any order: the reason
// why neighbours that are wanted far apart do not share a range.
void expect_streams(const Case& c, const Plan& plan) {
  if (c.selections.size() != 1) return;
  std::set<uint32_t> tensors;
  for (const Target& target : plan.targets) {
    if (!tensors.insert(target.tensor).second) return;
    const auto& strides = c.index.tensors[target.tensor].strides;
    if (std::ranges::find(strides, 0U) != strides.end()) return;  // more is delivered than read
  }
  std::vector<uint64_t> held(plan.targets.size() + 1);  // changes, summed below
  uint32_t needed = 0;  // the first target that waits for this range
  for (const Range& range : plan.ranges) {
    uint32_t first = ~0U;
    for (uint32_t i = 0; i < range.piece_count; ++i) {
      first = std::min(first, plan.pieces[range.first_piece + i].target);
    }
    needed = std::max(needed, first);
    for (uint32_t i = 0; i < range.piece_count; ++i) {
      const Piece& piece = plan.pieces[range.first_piece + i];
      held[needed] += piece.rows * piece.row_size;
      held[piece.target] -= piece.rows * piece.row_size;
    }
  }
  uint64_t now = 0;
  for (const uint64_t change : held) {
    now += change;
    ASSERT_LE(now, 2 * c.limits.range_size);
  }
}

class PlanProperty : public testing::TestWithParam<int> {};

TEST_P(PlanProperty, delivers_every_wanted_byte_once) {
  constexpr uint64_t kCases = 60;
  std::map<std::string, uint64_t> digests;  // of plans that differ
  for (uint64_t i = 0; i < kCases; ++i) {
    const uint64_t seed = static_cast<uint64_t>(GetParam()) * kCases + i;
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const Case c = Maker(seed).make();
    const Plan plan = make_plan(c.index, c.selections, c.limits);
    expect_delivered(c, plan);
    expect_ranges_sound(c, plan);
    expect_order(c, plan);
    expect_streams(c, plan);
    const Case again = Maker(seed).make();
    const std::string digest = plan.digest();
    ASSERT_EQ(digest, make_plan(again.index, again.selections, again.limits).digest());
    if (!plan.targets.empty()) {
      const auto [found, fresh] = digests.try_emplace(digest, plan.bytes_read);
      ASSERT_TRUE(fresh || plan.bytes_read == found->second);
    }
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(digests.size(), kCases / 2);
}

INSTANTIATE_TEST_SUITE_P(Seeds, PlanProperty, testing::Range(0, 20));

}  // namespace
}  // namespace inrush
