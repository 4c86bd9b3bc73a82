// Whatever is wanted, however slow or faulty what reads it, down to the least budget: a load ends
// in bounded time, with every byte right or with one clean error. Each case is made from one seed.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "inrush/base/align.h"
#include "inrush/load/board.h"
#include "inrush/sinks/host.h"
#include "tests/load/doubles.h"
#include "tests/load/property_case.h"

namespace inrush {
namespace {

using namespace std::chrono_literals;
using test::FileBytes;
using test::Nature;
using test::Random;
using test::Remote;
using test::RemoteEngine;
using test::RemoteStore;

// No case takes a second on an idle machine; a deadlock takes for ever.
constexpr auto kPropertyPatience = 60s;

FileBytes bytes_at(const Memory& memory) { return {memory.data, memory.data + memory.size}; }

// A checkpoint far away, what is wanted of it, and how it is to be loaded.
class Scenario {
 public:
  explicit Scenario(uint64_t seed, uint64_t size = 400'000) : random(seed) {
    files = test::random_files(random, size);
    remote = std::make_shared<Remote>();
    for (const auto& [name, bytes] : files) remote->put(name, bytes);
    checkpoint.emplace(Checkpoint::open(std::make_unique<RemoteStore>(remote)));
    constexpr uint64_t kRangeSizes[] = {1000, 4 * kKiB, 16 * kKiB, 64 * kKiB, kMiB};
    options.limits.range_size = kRangeSizes[below(std::size(kRangeSizes))];
    options.limits.merge_gap = below(3) == 0 ? 0 : below(8 * kKiB);
    options.order = static_cast<Order>(below(3));
    consumers = 1 + static_cast<uint32_t>(below(8));
    options.selections =
        test::random_wants(random, checkpoint->index(), consumers, options.order != Order::given);
    options.collect = below(3) == 0;
    const uint64_t least = HostSink::least_budget(options.limits) + 4 * kKiB;
    options.budget = below(2) == 0 ? least : least + below(4 * least);
    if (below(4) == 0) use_allocator();
  }

  uint64_t below(uint64_t limit) { return random() % limit; }

  Nature nature() {
    Nature nature;
    nature.seed = random();
    nature.latency = std::chrono::microseconds(below(300));
    nature.jitter = std::chrono::microseconds(below(800));
    if (below(3) == 0) nature.bytes_per_second = 20'000'000 + below(200'000'000);
    if (below(2) == 0) nature.memory_align = nature.offset_align = 512U << below(4);
    nature.most_in_flight = 1 + static_cast<uint32_t>(below(64));
    return nature;
  }

  EngineFactory engines(const Nature& nature) {
    return [remote = remote, nature](const std::string&, const EngineOptions& engine) {
      return std::make_unique<RemoteEngine>(remote, nature, engine.wake_fd);
    };
  }

  // What the tensor must be: targets of one consumer come in the order of its wants, in any order
  // of consumers; with Order::ready they are told apart by name and size.
  void expect_right(const Plan& plan, const Tensor& tensor) {
    std::vector<size_t> position(consumers);
    for (size_t i = 0; i < plan.targets.size(); ++i) {
      const Target& target = plan.targets[i];
      const Want& want = options.selections[target.consumer].wants[position[target.consumer]++];
      const TensorInfo& info = checkpoint->index().tensors[target.tensor];
      if (target.consumer != tensor.consumer || info.name != tensor.name) continue;
      if (delivered.size() < plan.targets.size()) delivered.resize(plan.targets.size());
      if (delivered[i]) continue;
      delivered[i] = true;
      const FileBytes& file = files.at(checkpoint->index().blobs[info.blob].name);
      ASSERT_EQ(tensor.shape, target.shape);
      ASSERT_EQ(tensor.memory.size, target.size);
      ASSERT_EQ(bytes_at(tensor.memory), test::wanted_bytes(file, info, want)) << tensor.name;
      ASSERT_TRUE(options.order == Order::ready || last < static_cast<int64_t>(i));
      last = static_cast<int64_t>(i);
      return;
    }
    FAIL() << tensor.name << " for " << tensor.consumer << " was not wanted, or came twice";
  }

  Random random;
  std::map<std::string, FileBytes> files;
  std::shared_ptr<Remote> remote;
  std::optional<Checkpoint> checkpoint;
  LoadOptions options;
  uint32_t consumers = 1;
  std::vector<bool> delivered;
  int64_t last = -1;

 private:
  void use_allocator() {
    options.allocator = [](std::span<const MemoryRequest> requests) {
      std::vector<Memory> memories;
      for (const MemoryRequest& request : requests) {
        auto bytes = std::make_shared<FileBytes>(request.size);
        Memory memory;
        memory.data = bytes->data();
        memory.size = request.size;
        memory.owner = bytes;
        memories.push_back(memory);
      }
      return memories;
    };
  }
};

// Takes everything, with a consumer that is slow now and then. `Job` is a Load or a Board.
template <typename Job>
void take_all(Scenario& scenario, Job& job, const Plan& plan) {
  const Deadline patience = Clock::now() + kPropertyPatience;
  uint64_t taken = 0;
  while (true) {
    bool timed_out = false;
    const std::optional<Tensor> tensor = job.next(patience, timed_out);
    ASSERT_FALSE(timed_out) << "no end after " << taken << " of " << plan.targets.size();
    if (!tensor) break;
    ++taken;
    scenario.expect_right(plan, *tensor);
    if (testing::Test::HasFatalFailure()) return;
    if (scenario.below(40) == 0) std::this_thread::sleep_for(1ms);
  }
  ASSERT_EQ(taken, plan.targets.size());
  ASSERT_LE(job.stats().peak_staging, scenario.options.budget);
  ASSERT_EQ(job.stats().bytes, plan.bytes_delivered);
  ASSERT_EQ(scenario.remote->violations, 0);
}

// Engines end with their lanes, soon after the load.
void expect_quiet(const Scenario& scenario, std::chrono::milliseconds within = 30s) {
  const Deadline deadline = Clock::now() + within;
  while (scenario.remote->engines != 0 && Clock::now() < deadline) {
    std::this_thread::sleep_for(1ms);
  }
  ASSERT_EQ(scenario.remote->engines, 0);
  ASSERT_EQ(scenario.remote->violations, 0);
}

class LoadProperty : public testing::TestWithParam<uint64_t> {
 protected:
  // Seeds of this instance.
  [[nodiscard]] std::vector<uint64_t> seeds() const {
    std::vector<uint64_t> seeds;
    for (uint64_t i = 0; i < 8; ++i) seeds.push_back(GetParam() * 8 + i);
    return seeds;
  }
};

TEST_P(LoadProperty, every_byte_reaches_every_consumer_within_the_budget) {
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    scenario.options.engines = scenario.engines(scenario.nature());
    Load load(*scenario.checkpoint, scenario.options);
    take_all(scenario, load, load.plan());
    if (HasFatalFailure()) return;
    ASSERT_EQ(load.stats().retries, 0);
  }
}

TEST_P(LoadProperty, what_fails_now_and_then_is_read_again) {
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    // The first engine fails often, those that take its place never do.
    auto made = std::make_shared<std::atomic<int>>(0);
    Nature bad = scenario.nature();
    bad.failing = 0.3;
    const Nature good = scenario.nature();
    scenario.options.engines = [=, remote = scenario.remote](const std::string&,
                                                             const EngineOptions& engine) {
      return std::make_unique<RemoteEngine>(remote, made->fetch_add(1) == 0 ? bad : good,
                                            engine.wake_fd);
    };
    Load load(*scenario.checkpoint, scenario.options);
    try {
      take_all(scenario, load, load.plan());
    } catch (const Error& error) {  // one range failed twice
      ASSERT_EQ(error.code(), ErrorCode::source) << error.message();
      ASSERT_NE(error.message().find("503 SlowDown"), std::string::npos) << error.message();
    }
    if (HasFatalFailure()) return;
  }
}

TEST_P(LoadProperty, an_engine_that_dies_is_replaced) {
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    auto made = std::make_shared<std::atomic<int>>(0);
    Nature mortal = scenario.nature();
    mortal.dies_after = scenario.below(20);
    const Nature good = scenario.nature();
    scenario.options.choice.backend = {"URING_BUFFERED"};  // which may fall back
    scenario.options.engines = [=, remote = scenario.remote](const std::string&,
                                                             const EngineOptions& engine) {
      return std::make_unique<RemoteEngine>(remote, made->fetch_add(1) == 0 ? mortal : good,
                                            engine.wake_fd);
    };
    Load load(*scenario.checkpoint, scenario.options);
    take_all(scenario, load, load.plan());
    if (HasFatalFailure()) return;
  }
}

TEST_P(LoadProperty, a_range_that_cannot_be_read_is_one_clean_error) {
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    const Index& index = scenario.checkpoint->index();
    const Plan plan = make_plan(index, scenario.options.selections, scenario.options.limits);
    if (plan.ranges.empty()) continue;
    const Range& range = plan.ranges[scenario.below(plan.ranges.size())];
    const std::string& name = index.blobs[range.blob].name;
    scenario.remote->break_at(name, range.offset + scenario.below(range.size));
    scenario.options.engines = scenario.engines(scenario.nature());
    const Deadline patience = Clock::now() + kPropertyPatience;
    {
      Load load(*scenario.checkpoint, scenario.options);
      bool timed_out = false;
      try {
        while (load.next(patience, timed_out)) {
        }
        ADD_FAILURE() << (timed_out ? "a wait for ever" : "the error was lost");
        return;
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::source);
        ASSERT_NE(error.message().find("read " + name + " ["), std::string::npos) << error.what();
        ASSERT_NE(error.message().find("Input/output error"), std::string::npos) << error.what();
      }
      ASSERT_THROW(load.next(), Error);  // and it stays
    }
    expect_quiet(scenario);
    if (HasFatalFailure()) return;
  }
}

TEST_P(LoadProperty, cancel_at_any_moment_ends_it_within_a_second) {
  std::vector<Clock::duration> took;
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    Nature nature = scenario.nature();
    nature.latency = std::chrono::microseconds(scenario.below(20'000));
    scenario.options.engines = scenario.engines(nature);
    const auto moment = std::chrono::microseconds(scenario.below(30'000));
    std::optional<Load> load(std::in_place, *scenario.checkpoint, scenario.options);
    Clock::time_point cancelled{};
    std::thread other([&] {
      std::this_thread::sleep_for(moment);
      cancelled = Clock::now();
      load->cancel();
    });
    bool timed_out = false;
    bool whole = false;
    try {
      const Deadline patience = Clock::now() + kPropertyPatience;
      while (load->next(patience, timed_out)) {
      }
      whole = !timed_out;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::cancelled) << error.message();
    }
    const Clock::time_point ended = Clock::now();
    other.join();
    load.reset();
    ASSERT_FALSE(timed_out);
    took.push_back(Clock::now() - std::max(ended, cancelled));
    if (!whole) took.push_back(ended - cancelled);
    ASSERT_LT(took.back(), 10s);
    expect_quiet(scenario);
    if (HasFatalFailure()) return;
  }
  // Of many: one may wait for its turn on a busy machine.
  std::nth_element(took.begin(), took.begin() + took.size() / 2, took.end());
  EXPECT_LT(took[took.size() / 2], 1s);
}

TEST_P(LoadProperty, destruction_at_any_moment_leaves_nothing) {
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    Nature nature = scenario.nature();
    nature.latency = std::chrono::microseconds(scenario.below(20'000));
    scenario.options.engines = scenario.engines(nature);
    std::vector<Tensor> kept;
    const auto start = Clock::now();
    {
      Load load(*scenario.checkpoint, scenario.options);
      bool timed_out = false;
      for (uint64_t i = scenario.below(6); i > 0; --i) {
        if (auto tensor = load.next(start + kPropertyPatience, timed_out)) kept.push_back(*tensor);
      }
    }
    expect_quiet(scenario);
    for (const Tensor& tensor : kept) bytes_at(tensor.memory);  // still there
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, LoadProperty, testing::Range<uint64_t>(0, 4));

// What an engine delivered and the consumer has not taken, seen from outside.
TEST(LoadBudget, little_is_read_ahead_of_a_slow_consumer) {
  for (uint64_t seed = 100; seed < 112; ++seed) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    LoadOptions& options = scenario.options;
    options.selections.resize(1);
    options.collect = false;
    if (options.order == Order::ready) options.order = Order::file;
    Nature nature = scenario.nature();
    nature.latency = nature.jitter = 0us;
    nature.offset_align = 1;  // so that reads are of wanted bytes and small gaps only
    options.engines = scenario.engines(nature);
    Load load(*scenario.checkpoint, options);
    const Plan& plan = load.plan();
    uint64_t taken = 0;
    for (size_t i = 0; i < plan.targets.size(); ++i) {
      if (i % 7 == 0) std::this_thread::sleep_for(2ms);
      const uint64_t ahead =
          scenario.remote->bytes_served - std::min<uint64_t>(scenario.remote->bytes_served, taken);
      // The tensor asked for next is the consumer's; ranges hold some bytes nobody wants.
      const uint64_t gaps = plan.bytes_read - std::min(plan.bytes_read, plan.bytes_delivered);
      ASSERT_LE(ahead,
                options.budget + plan.targets[i].size + 2 * options.limits.range_size + gaps);
      ASSERT_TRUE(load.next());
      taken += plan.targets[i].size;
    }
  }
}

// A read that the kernel holds: the load is over within a second, the memory stays until the read
// has come, which AddressSanitizer watches.
TEST(LoadStuck, a_read_that_ignores_cancel_holds_up_nobody) {
  for (uint64_t seed = 200; seed < 202; ++seed) {
    SCOPED_TRACE(seed);
    Scenario scenario(seed);
    scenario.options.selections.clear();
    scenario.consumers = 1;
    Nature nature = scenario.nature();
    nature.latency = 10s;
    nature.deaf = 5000ms;
    scenario.options.engines = scenario.engines(nature);
    {
      Load load(*scenario.checkpoint, scenario.options);
      std::this_thread::sleep_for(50ms);
      load.cancel();
      ASSERT_THROW(load.next(), Error);
      ASSERT_GT(load.stats().orphaned, 0);
    }
    ASSERT_EQ(scenario.remote->engines, 1) << "held up until the read was done";
    expect_quiet(scenario);
  }
}

// Several lanes of different engines on one queue, as a choice can have them.
class BoardProperty : public LoadProperty {
 protected:
  static std::shared_ptr<Board> begin(Scenario& scenario) {
    Preparation preparation = test::prepare(*scenario.checkpoint, scenario.options);
    const bool halves = scenario.below(2) == 0;
    preparation.choice.lanes = lanes(scenario, halves);
    for (const Blob& blob : scenario.checkpoint->index().blobs) {
      Residency residency;
      for (uint64_t at = 0; at < blob.size; at += Residency::kWindow) {
        residency.windows.push_back(scenario.below(2) == 0 ? Warmth::warm : Warmth::cold);
      }
      preparation.facts.residency.push_back(residency);
    }
    auto board = std::make_shared<Board>(std::move(preparation));
    board->begin();
    return board;
  }

 private:
  static std::vector<LaneChoice> lanes(Scenario& scenario, bool halves) {
    std::vector<LaneChoice> lanes;
    const bool sequential = !halves && scenario.below(3) == 0;
    for (uint64_t i = halves ? 2 : 1 + scenario.below(3); i > 0; --i) {
      LaneChoice lane;
      lane.engine = "double" + std::to_string(i);
      if (halves) lane.coverage = i == 1 ? Coverage::resident : Coverage::cold;
      lane.count = 1 + static_cast<uint32_t>(scenario.below(3));
      lane.most = lane.count + static_cast<uint32_t>(scenario.below(3));
      lane.sequential = sequential;
      lane.block_size = scenario.options.limits.range_size * (1 + scenario.below(4));
      lane.depth = 1 + static_cast<uint32_t>(scenario.below(8));
      lane.most_depth = lane.depth * 2;
      lanes.push_back(lane);
    }
    return lanes;
  }
};

// Engines by name, made when first asked for, each as fast or slow as the seed will have it.
EngineFactory different_engines(Scenario& scenario, int mortals) {
  std::vector<Nature> natures;
  for (int i = 0; i < 8; ++i) natures.push_back(scenario.nature());
  if (scenario.below(2) == 0) natures[0].latency = 4ms;  // far slower than the others
  auto made = std::make_shared<std::atomic<int>>(0);
  return [=, remote = scenario.remote](const std::string& name, const EngineOptions& engine) {
    const int number = made->fetch_add(1);
    Nature nature = natures[static_cast<size_t>(number) % natures.size()];
    if (number < mortals && name != "pread") nature.dies_after = 3;
    return std::make_unique<RemoteEngine>(remote, nature, engine.wake_fd);
  };
}

TEST_P(BoardProperty, lanes_of_any_speed_share_one_queue) {
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(1000 + seed);
    scenario.options.engines = different_engines(scenario, 0);
    const auto board = begin(scenario);
    take_all(scenario, *board, board->preparation().plan);
    board->shut_down();
    expect_quiet(scenario);
    if (HasFatalFailure()) return;
  }
}

TEST_P(BoardProperty, lanes_that_die_leave_their_ranges_to_the_others) {
  for (const uint64_t seed : seeds()) {
    SCOPED_TRACE(seed);
    Scenario scenario(2000 + seed);
    scenario.options.engines = different_engines(scenario, 2);
    const auto board = begin(scenario);
    take_all(scenario, *board, board->preparation().plan);
    board->shut_down();
    expect_quiet(scenario);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, BoardProperty, testing::Range<uint64_t>(0, 4));

}  // namespace
}  // namespace inrush
