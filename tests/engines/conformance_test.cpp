// What holds for every engine, direct and through the page cache, plain and under decorators.
#include <gtest/gtest.h>

#include "inrush/engines/engines.h"
#include "tests/engines/scratch.h"

namespace inrush::testing {
namespace {

struct Way {
  const char* engine;
  bool direct;
};

std::string name_of_way(const ::testing::TestParamInfo<Way>& info) {
  return std::string(info.param.engine) + (info.param.direct ? "_direct" : "_buffered");
}

class EngineConformance : public ::testing::TestWithParam<Way> {
 protected:
  std::unique_ptr<Engine> make(uint32_t depth = 16, int wake_fd = -1) {
    const EngineRow* row = find_engine(GetParam().engine);
    EngineOptions options;
    options.direct = GetParam().direct;
    options.depth = depth;
    options.wake_fd = wake_fd;
    return row->make(options);
  }
  Folder folder_;
};

// Reads of random sizes that together are the whole blob, in random order.
std::vector<Read> shredded(const EngineTraits& traits, const Blob& blob, std::byte* target,
                           uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Read> reads;
  for (uint64_t at = 0; at < blob.size;) {
    const uint64_t wanted = align_up(1 + random() % (300 * kKiB), traits.offset_align);
    const uint64_t size = std::min(wanted, blob.size - at);
    reads.push_back(
        {.tag = reads.size(), .offset = at, .size = size, .required = size, .target = target + at});
    at += size;
  }
  std::shuffle(reads.begin(), reads.end(), random);
  return reads;
}

void read_all(Engine& engine, std::vector<Read> reads) {
  const size_t most = engine.traits().most_in_flight;
  size_t next = 0;
  size_t in_flight = 0;
  size_t finished = 0;
  Completion done[8];
  const Deadline deadline = Clock::now() + std::chrono::seconds(30);
  while (finished < reads.size() && Clock::now() < deadline) {
    const size_t count = std::min(most - in_flight, reads.size() - next);
    if (count > 0) engine.submit(std::span(reads).subspan(next, count));
    next += count;
    in_flight += count;
    const size_t got = engine.wait(done, deadline);
    for (size_t i = 0; i < got; ++i) EXPECT_FALSE(done[i].error) << done[i].error->what();
    in_flight -= got;
    finished += got;
  }
  EXPECT_EQ(finished, reads.size());
}

TEST_P(EngineConformance, reads_every_byte_in_any_order_and_size) {
  const Bytes bytes = random_bytes(5 * kMiB + 1234, 1);
  const Blob blob = open_blob(folder_.write("a", bytes));
  drop_pages(blob);
  const Arena arena(bytes.size());
  auto engine = make();
  ASSERT_EQ(engine->open(blob), 0U);
  read_all(*engine, shredded(engine->traits(), blob, arena.data(), 2));
  EXPECT_EQ(std::memcmp(arena.data(), bytes.data(), bytes.size()), 0);
}

INSTANTIATE_TEST_SUITE_P(All, EngineConformance,
                         ::testing::Values(Way{"uring", true}, Way{"uring", false},
                                           Way{"aio", true}, Way{"aio", false}, Way{"pread", true},
                                           Way{"pread", false}),
                         name_of_way);

}  // namespace
}  // namespace inrush::testing
