// The ways to read that the suites run over: every engine, direct and through the page cache, or
// from a server of the test's own; plain, under faults, and under faults that are retried; into
// memory of the host, pinned memory, or a device's.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "inrush/engines/engines.h"
#include "inrush/engines/faulty.h"
#include "inrush/engines/retry.h"
#include "tests/engines/drive.h"
#include "tests/engines/scratch.h"

namespace inrush::testing {

enum class Layer { plain, faulty, retried };

struct Way {
  const char* engine;
  bool direct;
  bool mapped;  // the target is a mapping of the file itself
  Layer layer = Layer::plain;
  bool remote = false;
  MemoryKind memory = MemoryKind::host;
  bool on_lane = false;  // wait() reads
};

inline std::string name_of(const Way& way) {
  std::string name = way.engine;
  if (!way.remote) name += way.direct ? "_direct" : way.mapped ? "_mapped" : "_buffered";
  if (way.on_lane) name += "_on_lane";
  if (way.memory == MemoryKind::pinned) name += "_pinned";
  if (way.layer == Layer::faulty) name += "_faulty";
  if (way.layer == Layer::retried) name += "_retried";
  return name;
}

inline void PrintTo(const Way& way, std::ostream* out) { *out << name_of(way); }

inline std::vector<Way> local_ways(const std::vector<Layer>& layers) {
  std::vector<Way> ways;
  for (const Layer layer : layers) {
    for (const char* engine : {"uring", "aio", "pread"}) {
      for (const bool direct : {true, false}) ways.push_back({engine, direct, false, layer});
    }
    ways.push_back({"pread", false, false, layer});
    ways.back().on_lane = true;
    ways.push_back({"mmap", false, true, layer});
    ways.push_back({"mmap", false, false, layer});
  }
  return ways;
}

inline std::vector<Way> all_ways(const std::vector<Layer>& layers) {
  std::vector<Way> ways = local_ways(layers);
  for (const Layer layer : layers) {
    for (const char* engine : {"http", "redis", "cache"}) {
      ways.push_back({engine, false, false, layer, true});
    }
  }
  return ways;
}

// The same into memory that is pinned for a device; nothing is mapped there.
inline std::vector<Way> pinned(std::vector<Way> ways) {
  std::erase_if(ways, [](const Way& way) { return way.mapped; });
  for (Way& way : ways) way.memory = MemoryKind::pinned;
  return ways;
}

// Engines that write into device memory by themselves.
inline std::vector<Way> device_ways(const std::vector<Layer>& layers) {
  std::vector<Way> ways;
  for (const Layer layer : layers) {
    ways.push_back({"cufile", true, false, layer, false, MemoryKind::device});
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

}  // namespace inrush::testing
