// The engines that hold an engine: what each of them adds.
#include <gtest/gtest.h>

#include "inrush/engines/slow.h"
#include "tests/engines/ways.h"

namespace inrush::testing {
namespace {

using std::chrono::milliseconds;

class Layers : public ::testing::Test {
 protected:
  Layers() : blob_(open_blob(folder_.write("a", bytes_))), arena_(blob_.size) {}

  static std::unique_ptr<Engine> pread() {
    EngineOptions options;
    options.depth = 32;
    return find_engine("pread")->make(options);
  }

  std::vector<Read> reads(Engine& engine, uint64_t size) {
    engine.open(blob_);
    return shredded(engine.traits(), blob_, arena_.data(), size);
  }

  Folder folder_;
  Bytes bytes_ = random_bytes(2 * kMiB, 1);
  Blob blob_;
  Arena arena_;
};

TEST_F(Layers, retry_counts_and_succeeds_once_the_trouble_is_over) {
  FaultOptions faults;
  faults.failing = 1;
  faults.most_failures = 5;
  RetryEngine engine(std::make_unique<FaultyEngine>(pread(), faults),
                     {.most = 10, .first_pause = milliseconds(1)});
  EXPECT_TRUE(drive(engine, reads(engine, 64 * kKiB)).failed.empty());
  EXPECT_EQ(engine.retries(), 5U);
  EXPECT_EQ(std::memcmp(arena_.data(), bytes_.data(), bytes_.size()), 0);
}

TEST_F(Layers, retry_gives_up_at_its_limit_and_says_so) {
  FaultOptions faults;
  faults.failing = 1;
  RetryEngine engine(std::make_unique<FaultyEngine>(pread(), faults),
                     {.most = 3, .first_pause = milliseconds(1)});
  engine.open(blob_);
  const Read read{
      .tag = 5, .file = 0, .offset = 0, .size = 100, .required = 100, .target = arena_.data()};
  const Outcome outcome = drive(engine, {read});
  ASSERT_EQ(outcome.failed.size(), 1U);
  EXPECT_EQ(outcome.failed[0].second.code(), ErrorCode::source);
  EXPECT_NE(outcome.failed[0].second.message().find("after 4 tries"), std::string::npos)
      << outcome.failed[0].second.what();
  EXPECT_EQ(engine.retries(), 3U);
}

TEST_F(Layers, retry_does_not_repeat_reads_of_wrong_data) {
  RetryEngine engine(pread(), {.most = 10, .first_pause = milliseconds(1)});
  const auto all = reads(engine, 64 * kKiB);
  ASSERT_EQ(::truncate(blob_.name.c_str(), 0), 0);
  EXPECT_EQ(drive(engine, all).failed.size(), all.size());
  EXPECT_EQ(engine.retries(), 0U);
}

TEST_F(Layers, a_read_that_waits_to_be_retried_is_cancelled_at_once) {
  FaultOptions faults;
  faults.failing = 1;
  RetryEngine engine(
      std::make_unique<FaultyEngine>(pread(), faults),
      {.most = 10, .first_pause = std::chrono::hours(1), .longest_pause = std::chrono::hours(1)});
  const auto all = reads(engine, 256 * kKiB);
  engine.submit(all);
  Completion done[4];
  while (engine.retries() < all.size()) engine.wait(done, Clock::now() + milliseconds(1));
  engine.cancel();
  const auto start = Clock::now();
  for (const auto& [tag, error] : complete(engine, all.size())) {
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::cancelled);
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
}

TEST_F(Layers, faulty_does_the_same_for_the_same_seed) {
  const auto failures = [&](uint64_t seed) {
    FaultOptions faults;
    faults.seed = seed;
    faults.failing = 0.3;
    FaultyEngine engine(pread(), faults);
    std::vector<uint64_t> tags;
    for (const auto& [read, error] : drive(engine, reads(engine, 32 * kKiB)).failed) {
      tags.push_back(read.tag);
    }
    std::sort(tags.begin(), tags.end());
    return tags;
  };
  const auto first = failures(1);
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, failures(1));
  EXPECT_NE(first, failures(2));
}

TEST_F(Layers, faulty_completes_out_of_order) {
  FaultOptions faults;
  faults.longest_delay = milliseconds(20);
  FaultyEngine engine(pread(), faults);
  auto all = reads(engine, 64 * kKiB);
  std::sort(all.begin(), all.end(), [](const Read& a, const Read& b) { return a.tag < b.tag; });
  engine.submit(all);
  std::vector<uint64_t> order;
  Completion done[4];
  while (order.size() < all.size()) {
    const size_t count = engine.wait(done, Clock::now() + milliseconds(100));
    for (size_t i = 0; i < count; ++i) order.push_back(done[i].tag);
  }
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
}

double seconds_to_read(Engine& engine, const std::vector<Read>& reads, size_t in_flight) {
  const auto start = Clock::now();
  for (size_t next = 0; next < reads.size(); next += in_flight) {
    const size_t count = std::min(in_flight, reads.size() - next);
    engine.submit(std::span(reads).subspan(next, count));
    complete(engine, count);
  }
  return std::chrono::duration<double>(Clock::now() - start).count();
}

TEST_F(Layers, slow_latency_is_shared_by_what_is_in_flight) {
  SlowEngine engine(pread(), {.latency = milliseconds(10)});
  const auto all = reads(engine, 128 * kKiB);
  ASSERT_EQ(all.size(), 16U);
  const double apart = seconds_to_read(engine, all, 1);
  EXPECT_GE(apart, 0.160);
  double together = apart;
  for (int i = 0; i < 5; ++i) together = std::min(together, seconds_to_read(engine, all, 16));
  EXPECT_GE(together, 0.010);
  EXPECT_LT(together, apart / 2) << "the best of five: the machine may be busy";
}

TEST_F(Layers, slow_keeps_to_its_rate_however_much_is_in_flight) {
  SlowEngine engine(pread(), {.bytes_per_second = 20 * kMiB});
  EXPECT_GE(seconds_to_read(engine, reads(engine, 128 * kKiB), 16), 0.099);
}

TEST_F(Layers, slow_charges_for_jumps_only) {
  SlowEngine engine(pread(), {.jump_penalty = milliseconds(10)});
  auto all = reads(engine, 128 * kKiB);
  std::sort(all.begin(), all.end(),
            [](const Read& a, const Read& b) { return a.offset < b.offset; });
  const double in_order = seconds_to_read(engine, all, 4);
  std::reverse(all.begin(), all.end());
  const double backwards = seconds_to_read(engine, all, 4);
  EXPECT_GE(backwards, 0.160);
  EXPECT_LT(in_order, backwards);
}

}  // namespace
}  // namespace inrush::testing
