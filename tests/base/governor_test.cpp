#include "inrush/base/governor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

namespace inrush {
namespace {

constexpr double kMebi = 1048576;

// Bytes a second with n units in flight.
using Curve = std::function<double(double n)>;

// Grows in proportion and is flat from `depth` on.
Curve saturating(double rate, double depth) {
  return [=](double n) { return rate * std::min(1.0, n / depth); };
}

// Every block takes a round trip and its own time on the wire, and all share one link.
Curve far_away(double latency_ms, double stream_rate, double link_rate, double block) {
  return [=](double n) {
    return std::min(link_rate, n * block / (latency_ms / 1000 + block / stream_rate));
  };
}

struct Course {
  double final_rate = 0;     // with what it settled on, without noise
  double best_rate = 0;      // of all it was allowed
  double seconds_to_95 = 0;  // until its target first gave 95 % of that
  uint32_t units = 0;
  uint32_t most_units = 0;  // ever tried
  double efficiency = 0;    // bytes moved in the time, over what the best target would have moved
};

struct Setup {
  GovernorLimits limits;
  double block = kMebi;
  double seconds = 2;
  double noise = 0.10;
  uint64_t seed = 1;
};

Course simulate(const Curve& curve, const Setup& setup) {
  Governor governor(setup.limits);
  std::mt19937_64 random(setup.seed);
  std::uniform_real_distribution<double> one(1 - setup.noise, 1 + setup.noise);
  Course run;
  for (uint32_t n = setup.limits.least; n <= setup.limits.most; ++n) {
    run.best_rate = std::max(run.best_rate, curve(n));
  }
  double now = 0;
  double bytes = 0;
  double wobble = 1;  // what a disk's own doings cost, changing every 5 ms
  double next_wobble = 0;
  run.seconds_to_95 = setup.seconds;
  while (now < setup.seconds) {
    if (now >= next_wobble) {
      wobble = one(random);
      next_wobble = now + 0.005;
    }
    const double rate = curve(governor.target());
    if (rate >= 0.95 * run.best_rate) run.seconds_to_95 = std::min(run.seconds_to_95, now);
    now += setup.block / (rate * wobble * one(random));
    bytes += setup.block;
    run.most_units = std::max(run.most_units, governor.target());
    governor.delivered(static_cast<uint64_t>(setup.block),
                       Clock::time_point(std::chrono::nanoseconds(1 + std::llround(now * 1e9))));
  }
  run.units = governor.target();
  run.final_rate = curve(run.units);
  run.efficiency = bytes / (run.best_rate * setup.seconds);
  return run;
}

constexpr uint64_t kSeeds = 20;

TEST(Governor, reaches_a_disks_rate_whatever_depth_it_wants) {
  for (const double depth : {1, 2, 4, 8, 16, 32, 64}) {
    for (const double rate : {0.5e9, 2e9, 7e9}) {
      if (depth * kMebi / rate > 0.05) continue;  // no disk takes that long over a read
      for (uint64_t seed = 0; seed < kSeeds; ++seed) {
        const Course run =
            simulate(saturating(rate, depth), {.limits = {8, 64, 1}, .seconds = 4, .seed = seed});
        EXPECT_GE(run.final_rate, 0.95 * run.best_rate) << depth << " at " << rate;
        EXPECT_GE(run.efficiency, 0.85) << depth << " at " << rate;
      }
    }
  }
}

TEST(Governor, does_not_overshoot_what_is_enough) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Course run = simulate(saturating(2e9, 8), {.limits = {8, 256, 1}, .seed = seed});
    EXPECT_LE(run.units, 32U);
    EXPECT_LE(run.most_units, 64U) << "one doubling that helps nobody is enough";
  }
}

TEST(Governor, finds_the_streams_of_a_far_store) {
  for (const double latency_ms : {1, 5, 20}) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      // 200 MB/s a stream, 1.5 GB/s in all.
      const Curve curve = far_away(latency_ms, 200e6, 1.5e9, 4 * kMebi);
      const Course run =
          simulate(curve, {.limits = {4, 64, 1}, .block = 4 * kMebi, .seconds = 3, .seed = seed});
      EXPECT_GE(run.final_rate, 0.95 * run.best_rate) << latency_ms << " ms";
      EXPECT_LE(run.seconds_to_95, 0.5) << latency_ms << " ms";
      EXPECT_LE(run.units, 64U);
    }
  }
}

TEST(Governor, a_load_of_one_second_is_long_enough) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Course run =
        simulate(saturating(2e9, 32), {.limits = {8, 64, 1}, .seconds = 1, .seed = seed});
    EXPECT_LE(run.seconds_to_95, 0.2);
    EXPECT_GE(run.efficiency, 0.85);
  }
}

TEST(Governor, goes_back_where_more_in_flight_is_slower) {
  // A spinning disk: every further stream costs seeks.
  const Curve curve = [](double n) { return 2e8 / (1 + 0.15 * (n - 1)); };
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Course run =
        simulate(curve, {.limits = {8, 32, 1}, .block = 4 * kMebi, .seconds = 20, .seed = seed});
    EXPECT_LE(run.units, 4U);
  }
}

TEST(Governor, keeps_within_its_limits_and_begins_with_the_first) {
  Governor governor({.first = 100, .most = 16, .least = 2});
  EXPECT_EQ(governor.target(), 16U);
  EXPECT_EQ(governor.best_rate(), 0);
  EXPECT_FALSE(governor.settled());
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Course run = simulate(saturating(2e9, 64), {.limits = {4, 16, 2}, .seed = seed});
    EXPECT_EQ(run.units, 16U);
    EXPECT_EQ(run.most_units, 16U);
  }
}

TEST(Governor, follows_a_place_that_becomes_faster) {
  Governor governor({.first = 4, .most = 64, .least = 1});
  double now = 0;
  const auto run_until = [&](double end, const Curve& curve) {
    while (now < end) {
      now += kMebi / curve(governor.target());
      governor.delivered(static_cast<uint64_t>(kMebi),
                         Clock::time_point(std::chrono::nanoseconds(1 + std::llround(now * 1e9))));
    }
  };
  run_until(2, saturating(1e9, 4));
  EXPECT_LE(governor.target(), 8U);
  run_until(12, saturating(4e9, 32));
  EXPECT_GE(governor.target(), 32U);
}

}  // namespace
}  // namespace inrush
