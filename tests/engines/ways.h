// The ways to read that the suites run over: every engine, direct and through the page cache,
// plain, under faults, and under faults that are retried.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "inrush/engines/engines.h"
#include "inrush/engines/faulty.h"
#include "inrush/engines/retry.h"
#include "tests/engines/scratch.h"

namespace inrush::testing {

enum class Layer { plain, faulty, retried };

struct Way {
  const char* engine;
  bool direct;
  bool mapped;  // the target is a mapping of the file itself
  Layer layer = Layer::plain;
};

inline std::string name_of(const Way& way) {
  std::string name = way.engine;
  name += way.direct ? "_direct" : way.mapped ? "_mapped" : "_buffered";
  if (way.layer == Layer::faulty) name += "_faulty";
  if (way.layer == Layer::retried) name += "_retried";
  return name;
}

inline void PrintTo(const Way& way, std::ostream* out) { *out << name_of(way); }

inline std::vector<Way> all_ways(const std::vector<Layer>& layers) {
  std::vector<Way> ways;
  for (const Layer layer : layers) {
    for (const char* engine : {"uring", "aio", "pread"}) {
      for (const bool direct : {true, false}) ways.push_back({engine, direct, false, layer});
    }
    ways.push_back({"mmap", false, true, layer});
    ways.push_back({"mmap", false, false, layer});
  }
  return ways;
}

inline std::unique_ptr<Engine> layered(std::unique_ptr<Engine> engine, Layer layer) {
  if (layer == Layer::plain) return engine;
  FaultOptions faults;
  faults.seed = 7;
  faults.cut = 0.3;
  faults.interrupted = 0.2;
  faults.failing = layer == Layer::retried ? 0.2 : 0;
  faults.longest_delay = std::chrono::milliseconds(2);
  engine = std::make_unique<FaultyEngine>(std::move(engine), faults);
  if (layer == Layer::faulty) return engine;
  const RetryOptions retry{.most = 30,
                           .first_pause = std::chrono::milliseconds(1),
                           .longest_pause = std::chrono::milliseconds(4)};
  return std::make_unique<RetryEngine>(std::move(engine), retry);
}

// A test over ways. Whatever this machine lacks is skipped with the engine's own reason.
class EngineTest : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    const std::string reason = find_engine(GetParam().engine)->unusable();
    if (!reason.empty()) GTEST_SKIP() << reason;
    if (!GetParam().direct) return;
    const Blob probe = open_blob(folder_.write("probe", random_bytes(8192, 0)));
    try {
      make()->open(probe);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }

  std::unique_ptr<Engine> make(uint32_t depth = 16, int wake_fd = -1) {
    EngineOptions options;
    options.direct = GetParam().direct;
    options.depth = depth;
    options.wake_fd = wake_fd;
    return layered(find_engine(GetParam().engine)->make(options), GetParam().layer);
  }

  // Memory that a whole blob can be read into, told to the engine.
  std::unique_ptr<Arena> target_for(Engine& engine, const Blob& blob) {
    auto arena = std::make_unique<Arena>(blob.size + 1, GetParam().mapped ? blob.fd : -1);
    Region region;
    region.data = arena->data();
    region.size = GetParam().mapped ? blob.size : arena->size();
    region.backing = GetParam().mapped ? Backing::mapping : Backing::anonymous;
    engine.attach(region);
    return arena;
  }

  Folder folder_;
};

// Reads of `size` bytes (or random sizes below 300 KiB) that together are the whole blob, shuffled.
inline std::vector<Read> shredded(const EngineTraits& traits, const Blob& blob, std::byte* target,
                                  uint64_t size = 0) {
  std::mt19937_64 random(blob.size);
  std::vector<Read> reads;
  for (uint64_t at = 0; at < blob.size;) {
    const uint64_t drawn = size > 0 ? size : 1 + random() % (300 * kKiB);
    const uint64_t part = std::min(align_up(drawn, traits.offset_align), blob.size - at);
    reads.push_back({.tag = 1000 + reads.size(),
                     .file = 0,
                     .offset = at,
                     .size = part,
                     .required = part,
                     .target = target + at});
    at += part;
  }
  std::shuffle(reads.begin(), reads.end(), random);
  return reads;
}

struct Outcome {
  size_t completed = 0;
  std::vector<std::pair<Read, Error>> failed;
};

// Keeps the engine as full as it allows until every read has completed, each once.
inline Outcome drive(Engine& engine, const std::vector<Read>& reads) {
  std::map<uint64_t, Read> in_flight;
  Outcome outcome;
  size_t next = 0;
  Completion done[8];
  const Deadline deadline = Clock::now() + std::chrono::seconds(30);
  while (outcome.completed < reads.size() && Clock::now() < deadline) {
    const size_t room = engine.traits().most_in_flight - in_flight.size();
    const size_t count = std::min(room, reads.size() - next);
    for (size_t i = next; i < next + count; ++i) in_flight.emplace(reads[i].tag, reads[i]);
    if (count > 0) engine.submit(std::span(reads).subspan(next, count));
    next += count;
    const size_t there = engine.wait(done, deadline);
    for (size_t i = 0; i < there; ++i) {
      const auto found = in_flight.find(done[i].tag);
      if (found == in_flight.end()) {
        ADD_FAILURE() << "completed, but not in flight: " << done[i].tag;
        continue;
      }
      if (done[i].error) outcome.failed.emplace_back(found->second, *done[i].error);
      in_flight.erase(found);
      ++outcome.completed;
    }
  }
  EXPECT_EQ(outcome.completed, reads.size());
  return outcome;
}

}  // namespace inrush::testing
