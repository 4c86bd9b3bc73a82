#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/policy/choose.h"

namespace inrush {
namespace {

constexpr uint64_t kKiB = 1ULL << 10;

// Blobs by the residency of their windows: c(old), w(arm), m(ixed).
Facts facts_of(const std::vector<std::string>& blobs) {
  Facts facts;
  for (const std::string& windows : blobs) {
    Residency residency;
    for (const char letter : windows) {
      residency.windows.push_back(letter == 'w'   ? Warmth::warm
                                  : letter == 'm' ? Warmth::mixed
                                                  : Warmth::cold);
    }
    facts.residency.push_back(residency);
  }
  return facts;
}

// Ranges of 1 MiB over [offset, end), cut at multiples of it, as the planner does.
void add(Plan& plan, uint32_t blob, uint64_t offset, uint64_t end) {
  while (offset < end) {
    const uint64_t next = std::min(end, (offset / kMiB + 1) * kMiB);
    Range range;
    range.blob = blob;
    range.offset = offset;
    range.size = next - offset;
    plan.ranges.push_back(range);
    offset = next;
  }
}

Choice mapping(bool warm, bool cold) {
  Choice choice;
  choice.map_warm = warm;
  choice.map_cold = cold;
  return choice;
}

std::string placed(const Plan& plan, const Facts& facts, const Choice& choice) {
  std::string text;
  for (const Placement placement : place(plan, facts, choice)) {
    text += placement == Placement::mapped ? 'm' : '.';
  }
  return text;
}

TEST(Place, without_mapping_everything_is_read) {
  Plan plan;
  add(plan, 0, 100, 4 * kMiB);
  EXPECT_EQ(placed(plan, facts_of({"ww"}), mapping(false, false)), "....");
}

TEST(Place, a_whole_file_is_mapped_however_small) {
  Plan plan;
  add(plan, 0, 100, 9000);
  EXPECT_EQ(placed(plan, facts_of({"w"}), mapping(true, false)), "m");
  EXPECT_EQ(placed(plan, facts_of({"c"}), mapping(true, true)), "m");
  EXPECT_EQ(placed(plan, facts_of({"c"}), mapping(true, false)), ".");
}

TEST(Place, warm_windows_are_mapped_and_cold_ones_read) {
  Plan plan;
  add(plan, 0, 100, 8 * kMiB);
  EXPECT_EQ(placed(plan, facts_of({"wcwm"}), mapping(true, false)), "mm..mm..");
  EXPECT_EQ(placed(plan, facts_of({"wcwm"}), mapping(true, true)), "mmmmmmmm");
}

TEST(Place, a_range_across_windows_is_mapped_only_if_all_of_them_are) {
  Plan plan;
  Range range;
  range.offset = kMiB;
  range.size = 2 * kMiB;  // windows 0 and 1
  plan.ranges.push_back(range);
  add(plan, 0, 3 * kMiB, 6 * kMiB);
  // Window 1 is read in part, so that none of it is mapped; window 2 still is.
  EXPECT_EQ(placed(plan, facts_of({"cww"}), mapping(true, false)), "..mm");
}

TEST(Place, small_runs_are_read) {
  Plan plan;
  add(plan, 0, 0, 10 * kKiB);
  add(plan, 0, kMiB, kMiB + 200 * kKiB);
  add(plan, 0, 3 * kMiB, 3 * kMiB + 20 * kKiB);
  EXPECT_EQ(placed(plan, facts_of({"ww"}), mapping(true, false)), ".m.");
}

TEST(Place, gaps_of_less_than_a_page_do_not_part_a_run) {
  Plan plan;
  for (uint64_t at = 0; at < kMiB; at += 8 * kKiB) add(plan, 0, at, at + 7 * kKiB);
  const std::string text = placed(plan, facts_of({"w"}), mapping(true, false));
  EXPECT_EQ(text, std::string(128, 'm'));
}

TEST(Place, mappings_are_few_and_the_largest) {
  Plan plan;
  for (uint64_t i = 0; i < 6000; ++i) {
    const uint64_t size = i % 2 == 0 ? 100 * kKiB : 300 * kKiB;
    add(plan, 0, i * kMiB, i * kMiB + size);
  }
  const auto placements = place(plan, facts_of({std::string(3000, 'w')}), mapping(true, false));
  size_t mapped = 0;
  for (size_t i = 0; i < placements.size(); ++i) {
    if (placements[i] == Placement::mapped) ++mapped;
    EXPECT_TRUE(i % 2 == 0 || placements[i] == Placement::mapped) << i;
  }
  EXPECT_EQ(mapped, 4096U);
}

TEST(Place, a_blob_that_nobody_probed_is_read) {
  Plan plan;
  add(plan, 3, 0, 4 * kMiB);
  EXPECT_EQ(placed(plan, facts_of({"w"}), mapping(true, true)), "....");
}

TEST(IsResident, asks_every_window_that_is_touched) {
  const Facts facts = facts_of({"wwcm"});
  Range range;
  range.offset = 2 * kMiB - 1;
  range.size = 2;
  EXPECT_TRUE(is_resident(range, facts));
  range.offset = 4 * kMiB - 1;
  EXPECT_FALSE(is_resident(range, facts));
  range.offset = 6 * kMiB;
  EXPECT_FALSE(is_resident(range, facts)) << "mixed is not resident";
  range.blob = 1;
  EXPECT_FALSE(is_resident(range, facts));
  range.size = 0;
  EXPECT_TRUE(is_resident(range, facts));
}

}  // namespace
}  // namespace inrush
