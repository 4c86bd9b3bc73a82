// The planner's specification, as a table: tensors, wants and limits on the left, ranges and
// pieces on the right.
#include "inrush/core/plan.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "inrush/core/error.h"

namespace inrush {
namespace {

using Shape = std::vector<uint64_t>;

// Tensors side by side in one blob, from `offset` on, and `tail` bytes behind them.
class Layout {
 public:
  explicit Layout(uint64_t offset = 0) : offset_(offset) { blob(); }

  Layout& blob() {
    Blob& blob = index_.blobs.emplace_back();
    blob.name = fmt::format("{}.safetensors", index_.blobs.size());
    blob.size = offset_;
    return *this;
  }
  Layout& hole(uint64_t size) {
    index_.blobs.back().size += size;
    return *this;
  }
  Layout& tensor(Dtype dtype, const Shape& shape) {
    TensorInfo info;
    info.name = fmt::format("t{}", index_.tensors.size());
    info.dtype = dtype;
    info.shape = shape;
    info.blob = static_cast<uint32_t>(index_.blobs.size() - 1);
    info.offset = index_.blobs.back().size;
    uint64_t bits = bits_of(dtype);
    for (const uint64_t length : shape) bits *= length;
    info.size = bits / 8;
    index_.blobs.back().size += info.size;
    index_.tensors.push_back(info);
    return *this;
  }
  Index& index() { return index_; }

 private:
  uint64_t offset_;
  Index index_;
};

constexpr PlanLimits kSmall{.range_size = 100, .merge_gap = 10, .largest_plan = 1000};

// One line a range: "blob [offset, +size) -before +after" and its pieces,
// "target: rows x row_size, source offset/pitch -> target offset/pitch".
std::string describe(const Plan& plan) {
  std::string text;
  for (const Range& range : plan.ranges) {
    text += fmt::format("{} [{}, +{}) -{} +{}", range.blob, range.offset, range.size,
                        range.slack_before, range.slack_after);
    for (uint32_t i = 0; i < range.piece_count; ++i) {
      const Piece& p = plan.pieces[range.first_piece + i];
      if (p.rows == 1) {
        text += fmt::format("; {}: {} at {} -> {}", p.target, p.row_size, p.source_offset,
                            p.target_offset);
      } else {
        text += fmt::format("; {}: {} x {} at {}/{} -> {}/{}", p.target, p.rows, p.row_size,
                            p.source_offset, p.source_pitch, p.target_offset, p.target_pitch);
      }
    }
    text += "\n";
  }
  return text;
}

std::string planned(Layout& layout, const std::vector<Selection>& selections,
                    const PlanLimits& limits = kSmall) {
  return describe(make_plan(layout.index(), selections, limits));
}

ErrorCode refusal(Layout& layout, const Want& want, const PlanLimits& limits = kSmall) {
  const Selection selection{{want}};
  try {
    make_plan(layout.index(), {&selection, 1}, limits);
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("plan"), std::string::npos) << error.message();
    return error.code();
  }
  ADD_FAILURE() << "not refused";
  return ErrorCode::cancelled;
}

TEST(Plan, nothing_wanted_reads_nothing) {
  Layout layout;
  layout.tensor(Dtype::u8, {10});
  EXPECT_EQ(planned(layout, {}), "");
  EXPECT_EQ(planned(layout, {{}, {}}), "");
}

TEST(Plan, neighbours_share_a_range) {
  Layout layout(8);
  layout.tensor(Dtype::u8, {10}).tensor(Dtype::f32, {2, 2}).tensor(Dtype::u8, {}).hole(5);
  EXPECT_EQ(planned(layout, {{{{0}, {1}, {2}}}}),
            "0 [8, +27) -8 +5; 0: 10 at 0 -> 0; 1: 16 at 10 -> 0; 2: 1 at 26 -> 0\n");
}

TEST(Plan, ranges_are_cut_at_multiples_of_the_file_offset) {
  Layout layout(30);
  layout.tensor(Dtype::u8, {200}).tensor(Dtype::u8, {80});
  EXPECT_EQ(planned(layout, {{{{0}, {1}}}}),
            "0 [30, +70) -30 +0; 0: 70 at 0 -> 0\n"
            "0 [100, +100) -0 +0; 0: 100 at 0 -> 70\n"
            "0 [200, +100) -0 +0; 0: 30 at 0 -> 170; 1: 70 at 30 -> 0\n"
            "0 [300, +10) -0 +0; 1: 10 at 0 -> 70\n");
}

TEST(Plan, a_gap_up_to_the_limit_is_read_and_a_wider_one_is_not) {
  Layout layout;
  layout.tensor(Dtype::u8, {5}).hole(10).tensor(Dtype::u8, {5}).hole(11).tensor(Dtype::u8, {5});
  EXPECT_EQ(planned(layout, {{{{0}, {1}, {2}}}}),
            "0 [0, +20) -0 +11; 0: 5 at 0 -> 0; 1: 5 at 15 -> 0\n"
            "0 [31, +5) -11 +0; 2: 5 at 0 -> 0\n");
}

TEST(Plan, a_gap_across_a_cut_is_not_read) {
  Layout layout(90);
  layout.tensor(Dtype::u8, {5}).hole(10).tensor(Dtype::u8, {5});
  EXPECT_EQ(planned(layout, {{{{0}, {1}}}}),
            "0 [90, +5) -90 +10; 0: 5 at 0 -> 0\n"
            "0 [105, +5) -10 +0; 1: 5 at 0 -> 0\n");
}

TEST(Plan, blobs_are_apart) {
  Layout layout;
  layout.tensor(Dtype::u8, {5}).blob().tensor(Dtype::u8, {5}).hole(3);
  EXPECT_EQ(planned(layout, {{{{0}, {1}}}}),
            "0 [0, +5) -0 +0; 0: 5 at 0 -> 0\n"
            "1 [0, +5) -0 +3; 1: 5 at 0 -> 0\n");
}

TEST(Plan, a_row_slice_is_one_run) {
  Layout layout(8);
  layout.tensor(Dtype::u16, {10, 4});
  const Selection rows{{{0, {{3, 6, 1}}}}};
  const Plan plan = make_plan(layout.index(), {&rows, 1}, kSmall);
  EXPECT_EQ(describe(plan), "0 [32, +24) -32 +32; 0: 24 at 0 -> 0\n");
  EXPECT_TRUE(plan.targets[0].contiguous);
  EXPECT_EQ(plan.targets[0].file_offset, 32);
  EXPECT_EQ(plan.targets[0].shape, (Shape{3, 4}));
}

TEST(Plan, a_column_slice_with_narrow_gaps_is_read_over) {
  Layout layout;
  layout.tensor(Dtype::u8, {4, 12});
  const Selection columns{{{0, {{0, 4, 1}, {2, 6, 1}}}}};
  const Plan plan = make_plan(layout.index(), {&columns, 1}, kSmall);
  EXPECT_EQ(describe(plan), "0 [2, +40) -2 +6; 0: 4 x 4 at 0/12 -> 0/4\n");
  EXPECT_FALSE(plan.targets[0].contiguous);
  EXPECT_EQ(plan.targets[0].shape, (Shape{4, 4}));
  EXPECT_EQ(plan.bytes_delivered, 16);
}

TEST(Plan, a_column_slice_with_wide_gaps_is_read_row_by_row) {
  Layout layout;
  layout.tensor(Dtype::u8, {3, 30});
  EXPECT_EQ(planned(layout, {{{{0, {{0, 3, 1}, {0, 5, 1}}}}}}),
            "0 [0, +5) -0 +25; 0: 5 at 0 -> 0\n"
            "0 [30, +5) -25 +25; 0: 5 at 0 -> 5\n"
            "0 [60, +5) -25 +25; 0: 5 at 0 -> 10\n");
}

TEST(Plan, rows_cut_by_a_range_become_head_rows_and_tail) {
  Layout layout(90);
  layout.tensor(Dtype::u8, {6, 20});
  EXPECT_EQ(planned(layout, {{{{0, {{0, 6, 1}, {0, 12, 1}}}}}}),
            "0 [90, +10) -90 +0; 0: 10 at 0 -> 0\n"
            "0 [100, +100) -0 +0; 0: 2 at 0 -> 10; 0: 4 x 12 at 10/20 -> 12/12; "
            "0: 10 at 90 -> 60\n"
            "0 [200, +2) -0 +8; 0: 2 at 0 -> 70\n");
}

TEST(Plan, a_range_ends_with_its_last_wanted_byte) {
  Layout layout;
  layout.tensor(Dtype::u8, {10, 15});  // 90..95 and 105..110: the cut at 100 lies in a gap
  EXPECT_EQ(planned(layout, {{{{0, {{0, 10, 1}, {0, 5, 1}}}}}}),
            "0 [0, +95) -0 +10; 0: 7 x 5 at 0/15 -> 0/5\n"
            "0 [105, +35) -10 +10; 0: 3 x 5 at 0/15 -> 35/5\n");
}

TEST(Plan, steps_take_single_elements) {
  Layout layout;
  layout.tensor(Dtype::u16, {9});
  EXPECT_EQ(planned(layout, {{{{0, {{1, 9, 3}}}}}}), "0 [2, +14) -2 +2; 0: 3 x 2 at 0/6 -> 0/2\n");
}

TEST(Plan, two_inner_slices_take_the_longest_dimension_as_rows) {
  Layout layout;
  layout.tensor(Dtype::u8, {8, 3, 2});
  EXPECT_EQ(planned(layout, {{{{0, {{0, 8, 1}, {0, 2, 1}, {1, 2, 1}}}}}}),
            "0 [1, +45) -1 +2; 0: 8 x 1 at 0/6 -> 0/2; 0: 8 x 1 at 2/6 -> 1/2\n");
}

TEST(Plan, column_slices_of_several_consumers_are_one_read) {
  Layout layout;
  layout.tensor(Dtype::u8, {2, 40});
  EXPECT_EQ(planned(layout, {{{{0, {{0, 2, 1}, {0, 20, 1}}}}}, {{{0, {{0, 2, 1}, {20, 40, 1}}}}}}),
            "0 [0, +80) -0 +0; 0: 2 x 20 at 0/40 -> 0/20; 1: 2 x 20 at 20/40 -> 0/20\n");
}

TEST(Plan, replicas_are_read_once) {
  Layout layout;
  layout.tensor(Dtype::u8, {50}).tensor(Dtype::u8, {5});
  EXPECT_EQ(planned(layout, {{{{0}, {1}}}, {{{1}}}, {{{0}}}}),
            "0 [0, +55) -0 +0; 0: 50 at 0 -> 0; 1: 50 at 0 -> 0; 2: 5 at 50 -> 0; "
            "3: 5 at 50 -> 0\n");
}

TEST(Plan, consumers_in_file_order_are_served_in_file_order_together) {
  Layout layout;
  layout.tensor(Dtype::u8, {5}).tensor(Dtype::u8, {5}).tensor(Dtype::u8, {5});
  const std::vector<Selection> selections{{{{1}, {2}}}, {{{0}, {2}}}};
  const Plan plan = make_plan(layout.index(), selections, kSmall);
  std::string order;
  for (const Target& target : plan.targets) {
    order += fmt::format("{}:t{} ", target.consumer, target.tensor);
  }
  EXPECT_EQ(order, "1:t0 0:t1 0:t2 1:t2 ");
}

TEST(Plan, consumers_in_other_orders_take_turns) {
  Layout layout;
  layout.tensor(Dtype::u8, {5}).tensor(Dtype::u8, {5}).tensor(Dtype::u8, {5});
  const std::vector<Selection> selections{{{{2}, {1}, {0}}}, {{{0}}}, {{{1}, {2}}}};
  const Plan plan = make_plan(layout.index(), selections, kSmall);
  std::string order;
  for (const Target& target : plan.targets) {
    order += fmt::format("{}:t{} ", target.consumer, target.tensor);
  }
  EXPECT_EQ(order, "0:t2 1:t0 2:t1 0:t1 2:t2 0:t0 ");
}

TEST(Plan, a_given_order_is_the_order_of_ranges) {
  Layout layout;
  layout.tensor(Dtype::u8, {150}).tensor(Dtype::u8, {20}).tensor(Dtype::u8, {150});
  EXPECT_EQ(planned(layout, {{{{2}, {0}}}}),
            "0 [170, +30) -20 +0; 0: 30 at 0 -> 0\n"
            "0 [200, +100) -0 +0; 0: 100 at 0 -> 30\n"
            "0 [300, +20) -0 +0; 0: 20 at 0 -> 130\n"
            "0 [0, +100) -0 +0; 1: 100 at 0 -> 0\n"
            "0 [100, +50) -0 +20; 1: 50 at 0 -> 100\n");
}

TEST(Plan, neighbours_wanted_far_apart_do_not_share_a_range) {
  Layout layout;
  layout.tensor(Dtype::u8, {20}).tensor(Dtype::u8, {20}).blob().tensor(Dtype::u8, {300});
  EXPECT_EQ(planned(layout, {{{{1}, {0}}}}),  // soon enough after each other
            "0 [0, +40) -0 +0; 0: 20 at 20 -> 0; 1: 20 at 0 -> 0\n");
  EXPECT_EQ(planned(layout, {{{{1}, {2}, {0}}}}),
            "0 [20, +20) -0 +0; 0: 20 at 0 -> 0\n"
            "1 [0, +100) -0 +0; 1: 100 at 0 -> 0\n"
            "1 [100, +100) -0 +0; 1: 100 at 0 -> 100\n"
            "1 [200, +100) -0 +0; 1: 100 at 0 -> 200\n"
            "0 [0, +20) -0 +0; 2: 20 at 0 -> 0\n");
}

TEST(Plan, one_tensor_may_be_wanted_twice) {
  Layout layout;
  layout.tensor(Dtype::u8, {10, 10});
  EXPECT_EQ(planned(layout, {{{{0, {{0, 2, 1}}}, {0, {{1, 3, 1}}}}}}),
            "0 [0, +30) -0 +70; 0: 20 at 0 -> 0; 1: 20 at 10 -> 0\n");
}

TEST(Plan, empty_tensors_are_delivered_without_a_range) {
  Layout layout;
  layout.tensor(Dtype::f32, {0, 7}).tensor(Dtype::f32, {2}).tensor(Dtype::f32, {3, 4});
  const Selection all{{{0, {{0, 0, 1}}}, {0}, {1}, {2, {{1, 1, 1}}}}};
  const Plan plan = make_plan(layout.index(), {&all, 1}, kSmall);
  EXPECT_EQ(describe(plan), "0 [0, +8) -0 +48; 2: 8 at 0 -> 0\n");
  for (const uint32_t empty : {0, 1, 3}) {
    EXPECT_GT(plan.targets[empty].first_range, plan.targets[empty].last_range);
    EXPECT_EQ(plan.targets[empty].size, 0);
  }
  EXPECT_EQ(plan.targets[3].shape, (Shape{0, 4}));
}

TEST(Plan, packed_elements_are_sliced_at_whole_bytes) {
  Layout layout;
  layout.tensor(Dtype::f4, {4, 6}).tensor(Dtype::f6_e2m3, {4, 4}).tensor(Dtype::f4, {2, 3});
  EXPECT_EQ(planned(layout, {{{{0, {{1, 3, 1}}}}}}), "0 [3, +6) -3 +18; 0: 6 at 0 -> 0\n");
  EXPECT_EQ(planned(layout, {{{{0, {{0, 4, 1}, {2, 4, 1}}}}}}),
            "0 [1, +10) -1 +16; 0: 4 x 1 at 0/3 -> 0/1\n");
  EXPECT_EQ(planned(layout, {{{{1, {{2, 4, 1}}}}}}), "0 [18, +6) -18 +3; 0: 6 at 0 -> 0\n");
  EXPECT_EQ(planned(layout, {{{{2, {{0, 2, 1}}}}}}), "0 [24, +3) -24 +0; 0: 3 at 0 -> 0\n");
  EXPECT_EQ(refusal(layout, {0, {{0, 4, 1}, {1, 3, 1}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {0, {{0, 4, 1}, {0, 6, 2}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {1, {{0, 4, 1}, {0, 3, 1}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {2, {{1, 2, 1}}}), ErrorCode::usage);
}

TEST(Plan, slices_that_do_not_fit_are_refused) {
  Layout layout;
  layout.tensor(Dtype::u8, {10, 10}).tensor(Dtype::u8, {});
  EXPECT_EQ(refusal(layout, {0, {{0, 11, 1}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {0, {{5, 4, 1}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {0, {{0, 10, 0}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {0, {{0, 1, 1}, {0, 1, 1}, {0, 1, 1}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {1, {{0, 0, 1}}}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {2, {}}), ErrorCode::usage);
  EXPECT_EQ(planned(layout, {{{{0, {{9, 10, ~0ULL}}}}}}), "0 [90, +10) -90 +1; 0: 10 at 0 -> 0\n");
}

TEST(Plan, an_encoded_tensor_is_read_whole_only) {
  Layout layout;
  layout.tensor(Dtype::u8, {10, 10});
  layout.index().tensors[0].encoding = "secretbox";
  layout.index().tensors[0].size = 33;  // not what the shape says
  EXPECT_EQ(planned(layout, {{{{0}}}}), "0 [0, +33) -0 +67; 0: 33 at 0 -> 0\n");
  EXPECT_EQ(refusal(layout, {0, {{0, 1, 1}}}), ErrorCode::usage);
}

TEST(Plan, strides_are_followed) {
  Layout layout;
  layout.tensor(Dtype::u8, {4, 6});
  layout.index().tensors[0].strides = {6, 1};  // as if it had none
  EXPECT_EQ(planned(layout, {{{{0}}}}), "0 [0, +24) -0 +0; 0: 24 at 0 -> 0\n");
  layout.index().tensors[0].strides = {1, 4};  // transposed
  EXPECT_EQ(planned(layout, {{{{0}}}}),
            "0 [0, +24) -0 +0; 0: 6 x 1 at 0/4 -> 0/1; 0: 6 x 1 at 1/4 -> 6/1; "
            "0: 6 x 1 at 2/4 -> 12/1; 0: 6 x 1 at 3/4 -> 18/1\n");
  EXPECT_EQ(planned(layout, {{{{0, {{0, 1, 1}}}}}}), "0 [0, +21) -0 +3; 0: 6 x 1 at 0/4 -> 0/1\n");
  layout.index().tensors[0].strides = {2, 1};  // windows that overlap
  EXPECT_EQ(refusal(layout, {0, {{0, 4, 1}}}), ErrorCode::data);
  layout.index().tensors[0].strides = {0, 1};  // one row shown four times
  EXPECT_EQ(planned(layout, {{{{0}}}}), "0 [0, +6) -0 +18; 0: 4 x 6 at 0/0 -> 0/6\n");
  EXPECT_EQ(planned(layout, {{{{0, {{1, 3, 1}}}}}}), "0 [0, +6) -0 +18; 0: 2 x 6 at 0/0 -> 0/6\n");
  layout.index().tensors[0].strides = {6, 1ULL << 62};
  EXPECT_EQ(refusal(layout, {0, {{0, 4, 1}}}), ErrorCode::data);
}

TEST(Plan, hostile_indexes_are_refused) {
  const SliceDim one{0, 1, 1};
  const auto refused = [&](auto change, const std::vector<SliceDim>& slice = {}) {
    Layout layout;
    layout.tensor(Dtype::f32, {10, 10});
    change(layout.index());
    return refusal(layout, {0, slice});
  };
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].size = 401; }), ErrorCode::data);
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].size = ~0ULL; }), ErrorCode::data);
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].offset = ~0ULL - 200; }), ErrorCode::data);
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].blob = 1; }), ErrorCode::data);
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].shape[0] = 11; }, {one}), ErrorCode::data);
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].shape[0] = ~0ULL; }, {one}), ErrorCode::data);
  EXPECT_EQ(refused(
                [](Index& x) {
                  x.tensors[0].shape = {1ULL << 63, 4, 2};
                },
                {one}),
            ErrorCode::data);
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].size = 0; }, {one}), ErrorCode::data);
  EXPECT_EQ(refused([](Index& x) { x.tensors[0].strides = {1}; }, {one}), ErrorCode::data);
}

TEST(Plan, limits_hold) {
  Layout layout;
  layout.tensor(Dtype::u8, {1000, 100});
  const std::vector<SliceDim> columns{{0, 1000, 1}, {0, 50, 1}};
  EXPECT_EQ(refusal(layout, {0, {}}, {.range_size = 100, .largest_plan = 1999}), ErrorCode::usage);
  EXPECT_EQ(
      refusal(layout, {0, columns}, {.range_size = 100, .merge_gap = 0, .largest_plan = 1999}),
      ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {0, {}}, {.range_size = 0}), ErrorCode::usage);
  EXPECT_EQ(refusal(layout, {0, {}}, {.range_size = 1ULL << 40}), ErrorCode::usage);
  const Selection all{{{0}}};
  const PlanLimits just{.range_size = 100, .merge_gap = 0, .largest_plan = 2000};
  EXPECT_EQ(make_plan(layout.index(), {&all, 1}, just).ranges.size(), 1000);
}

TEST(Plan, the_digest_is_of_every_field) {
  Layout layout;
  layout.tensor(Dtype::u8, {4, 12}).tensor(Dtype::u8, {300});
  const Selection wants{{{0, {{0, 4, 1}, {2, 6, 1}}}, {1}}};
  const Plan plan = make_plan(layout.index(), {&wants, 1}, kSmall);
  const std::string digest = plan.digest();
  EXPECT_EQ(digest.size(), 64);
  EXPECT_EQ(digest, make_plan(layout.index(), {&wants, 1}, kSmall).digest());
  const auto changed = [&](auto change) {
    Plan copy = plan;
    change(copy);
    return copy.digest() != digest;
  };
  EXPECT_TRUE(changed([](Plan& p) { ++p.ranges[1].offset; }));
  EXPECT_TRUE(changed([](Plan& p) { ++p.ranges[1].slack_after; }));
  EXPECT_TRUE(changed([](Plan& p) { p.ranges.pop_back(); }));
  EXPECT_TRUE(changed([](Plan& p) { ++p.pieces[0].rows; }));
  EXPECT_TRUE(changed([](Plan& p) { ++p.pieces.back().target_pitch; }));
  EXPECT_TRUE(changed([](Plan& p) { p.targets[0].shape = {16}; }));
  EXPECT_TRUE(changed([](Plan& p) { p.targets[0].contiguous = true; }));
  EXPECT_TRUE(changed([](Plan& p) { ++p.targets[1].consumer; }));
  EXPECT_TRUE(changed([](Plan& p) { ++p.bytes_read; }));
}

// The whole of a checkpoint of 100,000 tensors; the time is printed, the bound is generous because
// the build may be instrumented.
TEST(Plan, many_small_tensors_are_planned) {
  Layout layout(1 << 20);
  Selection all;
  for (uint32_t i = 0; i < 100'000; ++i) {
    layout.tensor(Dtype::bf16, {64, 1 + i % 97});
    all.wants.push_back({i, {}});
  }
  const auto start = std::chrono::steady_clock::now();
  const Plan plan = make_plan(layout.index(), {&all, 1});
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("milliseconds", fmt::format("{:.1f}", ms));
  std::printf("100,000 tensors: %.1f ms, %zu ranges\n", ms, plan.ranges.size());
  EXPECT_EQ(plan.bytes_read, plan.bytes_delivered);
}

}  // namespace
}  // namespace inrush
