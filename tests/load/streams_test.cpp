// Lanes that read one long stream each, as places want it that serve those best.
#include <gtest/gtest.h>

#include <set>

#include "inrush/base/align.h"
#include "inrush/core/select.h"
#include "inrush/load/board.h"
#include "inrush/sinks/host.h"
#include "tests/load/doubles.h"
#include "tests/load/property_case.h"

namespace inrush {
namespace {

using namespace std::chrono_literals;
using test::Nature;
using test::Remote;
using test::RemoteEngine;
using test::RemoteStore;

constexpr auto kPatience = 30s;

class StreamsTest : public testing::Test {
 protected:
  // All tensors of a random checkpoint of about `size` bytes, in ranges of the options' size.
  std::shared_ptr<Board> begin(uint64_t size, const Nature& nature, const LaneChoice& lane) {
    test::Random random(1);
    for (const auto& [name, bytes] : test::random_files(random, size)) remote_->put(name, bytes);
    options_.engines = [remote = remote_, nature](const std::string&, const EngineOptions& engine) {
      return std::make_unique<RemoteEngine>(remote, nature, engine.wake_fd);
    };
    const Checkpoint checkpoint = Checkpoint::open(std::make_unique<RemoteStore>(remote_));
    options_.selections = {{select(checkpoint.index(), {})}};
    Preparation preparation = test::prepare(checkpoint, options_);
    preparation.facts.residency.resize(checkpoint.index().blobs.size());
    preparation.choice.lanes = {lane};
    auto board = std::make_shared<Board>(std::move(preparation));
    board->begin();
    return board;
  }

  [[nodiscard]] LaneChoice streams(uint32_t count, uint32_t most) const {
    LaneChoice lane;
    lane.engine = "double";
    lane.sequential = true;
    lane.count = count;
    lane.most = most;
    lane.depth = lane.most_depth = 1;
    lane.block_size = options_.limits.range_size;
    return lane;
  }

  LoadOptions options_;
  std::shared_ptr<Remote> remote_ = std::make_shared<Remote>();
};

// The stream goes on where it was, and the budget is full before it has come round to what is due.
TEST_F(StreamsTest, what_is_due_is_read_when_nothing_else_fits) {
  options_.limits.range_size = 1000;
  options_.budget = HostSink::least_budget(options_.limits) + 4 * kKiB;
  Nature nature;
  nature.gives_up = 0;  // and is to be taken again
  const auto board = begin(400'000, nature, streams(1, 1));
  const Plan& plan = board->preparation().plan;
  ASSERT_GT(plan.targets.size(), 1);
  for (size_t taken = 0; taken < plan.targets.size(); ++taken) {
    bool timed_out = false;
    ASSERT_TRUE(board->next(Clock::now() + kPatience, timed_out)) << "no end after " << taken;
  }
  board->shut_down();
}

// Each stream is slow, and together they are as fast as they are many.
TEST_F(StreamsTest, more_read_where_more_pay) {
  options_.limits.range_size = 64 * kKiB;
  options_.budget = 64 * kMiB;
  options_.collect = true;
  options_.trace = true;
  Nature nature;
  nature.latency = 50ms;  // a thread has time to start before its use is judged
  const auto board = begin(6'000'000, nature, streams(2, 8));
  ASSERT_TRUE(board->wait(Clock::now() + kPatience));
  std::set<std::string> readers;
  for (const TraceEvent& event : board->trace()) {
    if (event.kind == std::string_view("read")) readers.insert(event.lane);
  }
  EXPECT_GT(readers.size(), 2);
  board->shut_down();
}

}  // namespace
}  // namespace inrush
