// The seam carries an engine that is nothing like a local file: the same loop drives it, alone and
// under the layers.
#include "tests/engines/doubles.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/engines/ways.h"

namespace inrush::testing {
namespace {

class Remote : public ::testing::Test {
 protected:
  Remote() : blobs_{{"peer://a/model", random_bytes(kMiB + 3, 1)}}, arena_(2 * kMiB) {
    blob_.name = "peer://a/model";
    blob_.size = kMiB + 3;
    region_.data = arena_.data();
    region_.size = arena_.size();
    region_.kind = MemoryKind::pinned;
  }

  void expect_all_bytes() {
    EXPECT_EQ(std::memcmp(arena_.data(), blobs_.at(blob_.name).data(), blob_.size), 0);
  }

  RemoteEngine::Blobs blobs_;
  Arena arena_;
  Blob blob_;
  Region region_;
};

TEST_F(Remote, writes_only_pinned_memory_that_was_attached) {
  RemoteEngine engine(blobs_, blob_.size, {});
  engine.open(blob_);
  const Read read{
      .tag = 1, .file = 0, .offset = 3, .size = 5, .required = 5, .target = arena_.data() + 1};
  EXPECT_THROW(engine.submit({&read, 1}), Error);
  engine.attach(region_);
  EXPECT_TRUE(drive(engine, {read}).failed.empty());
  EXPECT_EQ(std::memcmp(arena_.data() + 1, blobs_.at(blob_.name).data() + 3, 5), 0);
}

TEST_F(Remote, reads_wait_for_coverage_that_grows) {
  RemoteEngine engine(blobs_, 0, {});
  engine.open(blob_);
  engine.attach(region_);
  std::thread other_end([&] {
    for (uint64_t covered = 0; covered < blob_.size; covered += 100'000) {
      engine.grow(covered);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    engine.grow(blob_.size);
  });
  EXPECT_TRUE(
      drive(engine, shredded(engine.traits(), blob_, arena_.data(), 10'001)).failed.empty());
  other_end.join();
  expect_all_bytes();
}

TEST_F(Remote, under_faults_and_retries_every_byte_arrives) {
  auto engine =
      layered(std::make_unique<RemoteEngine>(blobs_, blob_.size, EngineOptions{}), Layer::retried);
  engine->open(blob_);
  engine->attach(region_);
  EXPECT_TRUE(
      drive(*engine, shredded(engine->traits(), blob_, arena_.data(), 10'001)).failed.empty());
  expect_all_bytes();
}

TEST_F(Remote, a_peer_that_dies_fails_what_is_in_flight) {
  RemoteEngine engine(blobs_, 0, {});
  engine.open(blob_);
  engine.attach(region_);
  const auto reads = shredded(engine.traits(), blob_, arena_.data(), 100'000);
  engine.submit(reads);
  engine.die();
  for (const auto& [tag, error] : complete(engine, reads.size())) {
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::source);
  }
}

}  // namespace
}  // namespace inrush::testing
