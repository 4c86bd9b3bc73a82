// Drives an engine as a lane does: a blob cut into reads, submitted and waited for.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/core/engine.h"

namespace inrush::testing {

// Waits until `count` reads have completed; fails the test where a tag comes twice or it takes
// longer than `patience`.
inline std::map<uint64_t, std::optional<Error>> complete(
    Engine& engine, size_t count, std::chrono::milliseconds patience = std::chrono::seconds(20)) {
  std::map<uint64_t, std::optional<Error>> seen;
  const Deadline deadline = Clock::now() + patience;
  Completion done[7];
  while (seen.size() < count && Clock::now() < deadline) {
    const size_t got = engine.wait(done, deadline);
    for (size_t i = 0; i < got; ++i) {
      EXPECT_TRUE(seen.emplace(done[i].tag, done[i].error).second) << "twice: " << done[i].tag;
    }
  }
  EXPECT_EQ(seen.size(), count);
  return seen;
}

// Engines that write to a device are asked for whole multiples, beyond the blob's end too.
inline bool asks_for_multiples(const EngineTraits& traits) {
  return traits.memory_kinds == 1U << static_cast<uint32_t>(MemoryKind::device);
}

// Reads of `size` bytes (or random sizes below 300 KiB) that together are the whole blob, shuffled.
inline std::vector<Read> shredded(const EngineTraits& traits, const Blob& blob, std::byte* target,
                                  uint64_t size = 0) {
  std::mt19937_64 random(blob.size);
  std::vector<Read> reads;
  for (uint64_t at = 0; at < blob.size;) {
    const uint64_t drawn = size > 0 ? size : 1 + random() % (300 * kKiB);
    const uint64_t part = std::min(align_up(drawn, traits.offset_align), blob.size - at);
    reads.push_back(
        {.tag = 1000 + reads.size(),
         .file = 0,
         .offset = at,
         .size = asks_for_multiples(traits) ? align_up(part, traits.offset_align) : part,
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
