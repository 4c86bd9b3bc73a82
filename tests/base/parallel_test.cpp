#include "inrush/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace inrush {
namespace {

TEST(ParallelFor, does_every_piece_once) {
  for (const size_t count : {0U, 1U, 2U, 1000U}) {
    std::vector<std::atomic<int>> done(count);
    parallel_for(count, 4, [&](size_t i) { ++done[i]; });
    for (const auto& times : done) EXPECT_EQ(times, 1);
  }
}

TEST(ParallelFor, throws_what_the_lowest_failing_piece_threw) {
  for (int round = 0; round < 50; ++round) {
    try {
      parallel_for(100, 4, [](size_t i) {
        if (i % 10 == 7) throw std::runtime_error(std::to_string(i));
      });
      FAIL() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "7");
    }
  }
}

TEST(ParallelFor, begins_nothing_more_after_a_failure) {
  size_t begun = 0;
  EXPECT_THROW(parallel_for(1000, 1,
                            [&](size_t) {
                              ++begun;
                              throw std::runtime_error("stop");
                            }),
               std::runtime_error);
  EXPECT_EQ(begun, 1U);
}

}  // namespace
}  // namespace inrush
