// The ways to read that the suites run over: every engine, direct and through the page cache, or
// from a server of the test's own; plain, under faults, and under faults that are retried.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "inrush/engines/engines.h"
#include "inrush/engines/faulty.h"
#include "inrush/engines/retry.h"
#include "tests/engines/drive.h"
#include "tests/engines/scratch.h"
#include "tests/engines/servers.h"

namespace inrush::testing {

enum class Layer { plain, faulty, retried };

struct Way {
  const char* engine;
  bool direct;
  bool mapped;  // the target is a mapping of the file itself
  Layer layer = Layer::plain;
  bool remote = false;
};

inline std::string name_of(const Way& way) {
  std::string name = way.engine;
  if (!way.remote) name += way.direct ? "_direct" : way.mapped ? "_mapped" : "_buffered";
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
    if (GetParam().remote) {
      servers_ = std::make_unique<Servers>(GetParam().engine, folder_.path());
      if (!servers_->are_there()) GTEST_SKIP() << "redis-server is not installed";
    }
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

  // These bytes under that name, where the way's engine reads.
  Blob blob_of(const std::string& name, const Bytes& bytes) {
    return servers_ ? servers_->blob(name, bytes) : open_blob(folder_.write(name, bytes));
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

 private:
  std::unique_ptr<Servers> servers_;
};

}  // namespace inrush::testing
