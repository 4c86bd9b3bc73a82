#include "inrush/load/queue.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace inrush {
namespace {

RangeQueue queue_of(const std::vector<bool>& resident) {
  return {resident, std::vector<bool>(resident.size())};
}

TEST(RangeQueue, gives_ranges_in_order) {
  RangeQueue queue = queue_of(std::vector<bool>(5));
  Appetite appetite;
  appetite.most = 2;
  const auto first = queue.take(appetite);
  const auto second = queue.take(appetite);
  const auto third = queue.take(appetite);
  ASSERT_TRUE(first && second && third);
  EXPECT_EQ(first->first, 0U);
  EXPECT_EQ(second->first, 2U);
  EXPECT_EQ(third->first, 4U);
  EXPECT_EQ(third->count, 1U);
  EXPECT_FALSE(queue.take(appetite));
}

TEST(RangeQueue, keeps_resident_and_cold_apart) {
  RangeQueue queue = queue_of({true, false, true, false});
  Appetite warm;
  warm.coverage = Coverage::resident;
  warm.most = 8;
  EXPECT_EQ(queue.take(warm)->first, 0U);
  EXPECT_EQ(queue.take(warm)->first, 2U);
  EXPECT_FALSE(queue.take(warm));
  EXPECT_TRUE(queue.empty(Coverage::resident));
  EXPECT_FALSE(queue.empty(Coverage::cold));
  Appetite all;
  EXPECT_EQ(queue.take(all)->first, 1U);
}

TEST(RangeQueue, never_gives_what_is_done) {
  RangeQueue queue({false, false, false}, {true, false, true});
  Appetite appetite;
  appetite.most = 8;
  const auto run = queue.take(appetite);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->first, 1U);
  EXPECT_EQ(run->count, 1U);
  EXPECT_FALSE(queue.take(appetite));
}

TEST(RangeQueue, joins_what_is_given_back) {
  RangeQueue queue = queue_of(std::vector<bool>(8));
  Appetite appetite;
  appetite.most = 2;
  const auto first = queue.take(appetite);
  queue.take(appetite);
  queue.give_back({2, 2});
  queue.give_back(*first);
  appetite.most = 8;
  EXPECT_EQ(queue.take(appetite)->count, 8U);
}

TEST(RangeQueue, a_stream_continues_where_it_was_and_a_second_begins_far_away) {
  RangeQueue queue = queue_of(std::vector<bool>(100));
  Appetite one;
  one.sequential = true;
  const auto first = queue.take(one);
  EXPECT_EQ(first->first, 0U);
  Appetite two;
  two.sequential = true;
  const auto far = queue.take(two);
  EXPECT_GT(far->first, 40U);
  one.next = 1;
  EXPECT_EQ(queue.take(one)->first, 1U);
}

TEST(RangeQueue, a_stream_begins_where_it_is_told_and_goes_on_over_what_is_warm_and_what_is_not) {
  std::vector<bool> resident(20);
  for (const size_t i : {0, 1, 12, 13, 14}) resident[i] = true;
  RangeQueue queue = queue_of(resident);
  Appetite appetite;
  appetite.sequential = true;
  appetite.next = 10;
  for (uint32_t expected = 10; expected < 20; ++expected) {
    const auto run = queue.take(appetite);
    ASSERT_TRUE(run);
    EXPECT_EQ(run->first, expected);
    appetite.next = run->first + run->count;
  }
  EXPECT_LT(queue.take(appetite)->first, 10U);
}

TEST(RangeQueue, a_stream_stays_before_the_horizon) {
  RangeQueue queue = queue_of(std::vector<bool>(100));
  Appetite appetite;
  appetite.sequential = true;
  appetite.horizon = 10;
  std::set<uint32_t> seen;
  while (const auto run = queue.take(appetite)) {
    seen.insert(run->first);
    appetite.next = run->first + run->count;
  }
  EXPECT_EQ(seen.size(), 10U);
  EXPECT_EQ(*seen.rbegin(), 9U);
}

TEST(RangeQueue, what_is_turned_over_belongs_to_other_lanes_taken_or_not) {
  RangeQueue queue(std::vector<bool>(10), std::vector<bool>(10));
  Appetite cold;
  cold.coverage = Coverage::cold;
  cold.most = 4;
  const auto taken = queue.take(cold);
  ASSERT_TRUE(taken);
  std::vector<bool> refused(10);
  for (const size_t i : {2, 3, 4, 5, 8}) refused[i] = true;
  queue.turn_over(refused);
  queue.give_back(*taken);
  std::vector<uint32_t> left;
  while (const auto run = queue.take(cold)) {
    for (uint32_t i = 0; i < run->count; ++i) left.push_back(run->first + i);
  }
  EXPECT_EQ(left, (std::vector<uint32_t>{0, 1, 6, 7, 9}));
  EXPECT_TRUE(queue.empty(Coverage::cold));
  EXPECT_EQ(queue.left(), 5U);
}

TEST(RangeQueue, gives_every_range_exactly_once_whatever_is_asked) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<bool> resident(1 + random() % 60);
    for (size_t i = 0; i < resident.size(); ++i) resident[i] = random() % 2 == 0;
    RangeQueue queue = queue_of(resident);
    std::vector<int> taken(resident.size());
    int idle = 0;
    while (idle < 20) {
      Appetite appetite;
      appetite.coverage = static_cast<Coverage>(random() % 3);
      appetite.most = static_cast<uint32_t>(1 + random() % 5);
      appetite.sequential = random() % 2 == 0;
      appetite.next = static_cast<uint32_t>(random() % 70);
      const auto run = queue.take(appetite);
      if (!run) {
        ++idle;
        continue;
      }
      if (random() % 4 == 0) {
        queue.give_back(*run);
        continue;
      }
      for (uint32_t i = run->first; i < run->first + run->count; ++i) {
        ++taken[i];
        if (appetite.coverage == Coverage::resident) {
          EXPECT_TRUE(resident[i]);
        }
        if (appetite.coverage == Coverage::cold) {
          EXPECT_FALSE(resident[i]);
        }
      }
    }
    Appetite rest;
    rest.most = 1000;
    while (const auto run = queue.take(rest)) {
      for (uint32_t i = run->first; i < run->first + run->count; ++i) ++taken[i];
    }
    for (const int count : taken) EXPECT_EQ(count, 1) << "seed " << seed;
  }
}

}  // namespace
}  // namespace inrush
