#include "inrush/base/random.h"

#include <gtest/gtest.h>

#include <set>

namespace inrush {
namespace {

TEST(Random, no_two_are_the_same) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random_bits());
  EXPECT_EQ(seen.size(), 1000U);
}

}  // namespace
}  // namespace inrush
