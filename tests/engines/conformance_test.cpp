// What holds for every engine, direct and through the page cache, plain and under decorators,
// into memory of the host, pinned memory, and a device's.
#include <gtest/gtest.h>

#include <thread>

#include "tests/engines/engine_test.h"

namespace inrush::testing {
namespace {

using std::chrono::milliseconds;

class Conformance : public EngineTest {};
class LocalConformance : public EngineTest {};

TEST_P(Conformance, reads_every_byte_in_any_order_and_size) {
  const Bytes bytes = random_bytes(5 * kMiB + 1234, 1);
  const Blob blob = blob_of("a", bytes);
  drop_pages(blob);
  auto engine = make();
  const auto arena = target_for(*engine, blob);
  ASSERT_EQ(engine->open(blob), 0U);
  const Outcome outcome = drive(*engine, shredded(engine->traits(), blob, arena->data()));
  for (const auto& [read, error] : outcome.failed) ADD_FAILURE() << error.what();
  EXPECT_TRUE(arena->holds(bytes));
}

TEST_P(Conformance, reads_blobs_of_any_size_to_their_last_byte_and_no_further) {
  for (const uint64_t size : {1, 511, 512, 513, 4095, 4097, 12289, 300001}) {
    const Bytes bytes = random_bytes(size, size);
    const Blob blob = blob_of("b" + std::to_string(size), bytes);
    auto engine = make();
    const auto arena = target_for(*engine, blob);
    engine->open(blob);
    const uint64_t multiple = asks_for_multiples(engine->traits()) ? 4096 : 1;
    std::byte* after = arena->data() + align_up(size, multiple);
    if (!GetParam().mapped) std::memset(after, 0x5a, 4096);
    const Outcome outcome = drive(*engine, shredded(engine->traits(), blob, arena->data(), size));
    ASSERT_TRUE(outcome.failed.empty()) << size << ": " << outcome.failed[0].second.what();
    EXPECT_TRUE(arena->holds(bytes)) << size;
    if (GetParam().mapped) continue;
    EXPECT_TRUE(std::all_of(after, after + 4096, [](std::byte b) { return b == std::byte{0x5a}; }))
        << size;
  }
}

TEST_P(Conformance, a_read_may_ask_for_more_than_the_blob_has_beyond_what_is_required) {
  const Bytes bytes = random_bytes(100'000, 3);
  const Blob blob = blob_of("c", bytes);
  auto engine = make();
  const auto arena = target_for(*engine, blob);
  engine->open(blob);
  const Read read{
      .tag = 1, .offset = 0, .size = 131072, .required = 100'000, .target = arena->data()};
  EXPECT_TRUE(drive(*engine, {read}).failed.empty());
  EXPECT_TRUE(arena->holds(bytes));
}

TEST_P(Conformance, wait_returns_nothing_at_the_deadline) {
  auto engine = make();
  Completion done[4];
  const auto start = Clock::now();
  EXPECT_EQ(engine->wait(done, start + milliseconds(30)), 0U);
  EXPECT_GE(Clock::now() - start, milliseconds(30));
  EXPECT_EQ(engine->wait(done, start), 0U);
}

TEST_P(Conformance, a_ring_of_the_eventfd_wakes_the_lane) {
  const Fd wake = make_eventfd();
  auto engine = make(4, wake.get());
  Completion done[4];
  const auto start = Clock::now();
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(20));
    ring(wake.get());
  });
  EXPECT_EQ(engine->wait(done, start + std::chrono::seconds(60)), 0U);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));
  other.join();
  ring(wake.get());  // a ring from before wait() is not lost
  EXPECT_EQ(engine->wait(done, start + std::chrono::seconds(60)), 0U);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));
}

TEST_P(LocalConformance, an_end_before_what_is_required_is_an_error_that_says_where) {
  const std::string path = folder_.write("d", random_bytes(kMiB, 4));
  const Blob blob = open_blob(path);
  auto engine = make();
  const auto arena = target_for(*engine, blob);
  engine->open(blob);
  ASSERT_EQ(::truncate(path.c_str(), 300'000), 0);
  const Read read{.tag = 1,
                  .offset = 262144,
                  .size = 524288,
                  .required = 524288,
                  .target = arena->data() + 262144};
  const Outcome outcome = drive(*engine, {read});
  ASSERT_EQ(outcome.failed.size(), 1U);
  const Error& error = outcome.failed[0].second;
  EXPECT_EQ(error.code(), ErrorCode::data);
  EXPECT_NE(error.message().find("read " + path + " ["), std::string::npos) << error.what();
  EXPECT_NE(error.message().find(std::string("via ") + GetParam().engine + ": "), std::string::npos)
      << error.what();
  if (GetParam().layer != Layer::plain) return;
  EXPECT_NE(error.message().find("[262144, +524288)"), std::string::npos) << error.what();
  EXPECT_NE(error.message().find("ends at byte 300000"), std::string::npos) << error.what();
}

TEST_P(LocalConformance, a_file_that_shrinks_in_mid_load_is_an_error_and_no_crash) {
  const Bytes bytes = random_bytes(4 * kMiB, 5);
  const std::string path = folder_.write("e", bytes);
  const Blob blob = open_blob(path);
  drop_pages(blob);
  FaultOptions shrinking;
  shrinking.hook_after = 5;
  shrinking.hook = [&] { EXPECT_EQ(::truncate(path.c_str(), kMiB + 100), 0); };
  FaultyEngine engine(make(4), shrinking);
  const auto arena = target_for(engine, blob);
  engine.open(blob);
  const auto reads = shredded(engine.traits(), blob, arena->data(), 128 * kKiB);
  const Outcome outcome = drive(engine, reads);
  EXPECT_FALSE(outcome.failed.empty());
  std::map<uint64_t, bool> failed;
  for (const auto& [read, error] : outcome.failed) {
    EXPECT_EQ(error.code(), ErrorCode::data) << error.what();
    failed[read.tag] = true;
  }
  for (const Read& read : reads) {
    if (failed[read.tag] || GetParam().mapped) continue;
    EXPECT_EQ(std::memcmp(read.target, bytes.data() + read.offset, read.size), 0) << read.offset;
  }
}

TEST_P(Conformance, cancel_completes_every_read_once_and_soon) {
  const Blob blob = blob_of("f", random_bytes(8 * kMiB, 6));
  drop_pages(blob);
  auto engine = make(32);
  const auto arena = target_for(*engine, blob);
  engine->open(blob);
  const auto reads = shredded(engine->traits(), blob, arena->data(), 256 * kKiB);
  ASSERT_EQ(reads.size(), 32U);
  engine->submit(reads);
  const auto start = Clock::now();
  std::thread other([&] { engine->cancel(); });
  const auto seen = complete(*engine, reads.size());
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  other.join();
  for (const auto& [tag, error] : seen) {
    if (!error) continue;
    EXPECT_EQ(error->code(), ErrorCode::cancelled) << error->what();
  }
  engine->submit({&reads[0], 1});
  const auto late = complete(*engine, 1);
  ASSERT_TRUE(late.at(reads[0].tag));
  EXPECT_EQ(late.at(reads[0].tag)->code(), ErrorCode::cancelled);
}

TEST_P(Conformance, more_than_may_be_in_flight_is_refused_and_harms_nothing) {
  const Bytes bytes = random_bytes(kMiB + 1, 7);
  const Blob blob = blob_of("g", bytes);
  auto engine = make(4);
  const auto arena = target_for(*engine, blob);
  engine->open(blob);
  const auto reads = shredded(engine->traits(), blob, arena->data(), 4 * kKiB);
  ASSERT_GT(reads.size(), engine->traits().most_in_flight);
  try {
    engine->submit(reads);
    ADD_FAILURE() << "it took " << reads.size();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
  }
  EXPECT_TRUE(drive(*engine, reads).failed.empty());
  EXPECT_TRUE(arena->holds(bytes));
}

TEST_P(Conformance, reads_that_break_the_traits_are_refused) {
  const Blob blob = blob_of("h", random_bytes(kMiB, 8));
  auto engine = make();
  const auto arena = target_for(*engine, blob);
  engine->open(blob);
  const auto code = [&](const Read& read) {
    try {
      engine->submit({&read, 1});
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::data;
  };
  const Read good{.tag = 1, .offset = 0, .size = 65536, .required = 65536, .target = arena->data()};
  Read read = good;
  read.file = 1;
  EXPECT_EQ(code(read), ErrorCode::usage);
  read = good;
  read.size = 0;
  EXPECT_EQ(code(read), ErrorCode::usage);
  if (!GetParam().direct) return;
  read = good;
  read.offset = 1;
  EXPECT_EQ(code(read), ErrorCode::usage);
  read = good;
  read.size = 1000;
  EXPECT_EQ(code(read), ErrorCode::usage);
  read = good;
  read.target += 1;
  EXPECT_EQ(code(read), ErrorCode::usage);
}

TEST_P(Conformance, two_engines_read_one_file_at_once) {
  const Bytes bytes = random_bytes(3 * kMiB + 77, 9);
  const Blob blob = blob_of("i", bytes);
  auto first = make();
  auto second = make();
  const auto one = target_for(*first, blob);
  const auto two = target_for(*second, blob);
  first->open(blob);
  second->open(blob);
  std::thread other([&] {
    EXPECT_TRUE(drive(*second, shredded(second->traits(), blob, two->data())).failed.empty());
  });
  EXPECT_TRUE(drive(*first, shredded(first->traits(), blob, one->data())).failed.empty());
  other.join();
  EXPECT_TRUE(one->holds(bytes));
  EXPECT_TRUE(two->holds(bytes));
}

TEST_P(Conformance, many_files_are_read_by_one_engine) {
  constexpr uint32_t kFiles = 300;
  constexpr uint64_t kStride = 8192;
  auto engine = make();
  const auto arena = target_of(*engine, kFiles * kStride);
  const uint64_t multiple = asks_for_multiples(engine->traits()) ? 4096 : 1;
  std::vector<Bytes> bytes;
  std::vector<Read> reads;
  for (uint32_t file = 0; file < kFiles; ++file) {
    bytes.push_back(random_bytes(5000 + file, file));
    const Blob blob = blob_of("m" + std::to_string(file), bytes.back());
    ASSERT_EQ(engine->open(blob), file);
    reads.push_back({.tag = file,
                     .file = file,
                     .offset = 0,
                     .size = align_up(blob.size, multiple),
                     .required = blob.size,
                     .target = arena->data() + file * kStride});
  }
  EXPECT_TRUE(drive(*engine, reads).failed.empty());
  for (uint32_t file = 0; file < kFiles; ++file) {
    EXPECT_TRUE(arena->holds(bytes[file], file * kStride)) << file;
  }
}

TEST_P(LocalConformance, a_file_replaced_under_its_name_is_still_the_one_that_was_indexed) {
  const Bytes bytes = random_bytes(100'001, 10);
  const std::string path = folder_.write("j", bytes);
  const Blob blob = open_blob(path);
  std::filesystem::rename(folder_.write("other", random_bytes(100'001, 11)), path);
  auto engine = make();
  const auto arena = target_for(*engine, blob);
  engine->open(blob);
  EXPECT_TRUE(drive(*engine, shredded(engine->traits(), blob, arena->data())).failed.empty());
  EXPECT_TRUE(arena->holds(bytes));
}

TEST_P(LocalConformance, a_blob_that_is_no_local_file_is_refused_with_the_reason) {
  Blob blob;
  blob.name = "s3://bucket/model";
  blob.size = 10;
  auto engine = make();
  try {
    engine->open(blob);
    ADD_FAILURE() << "it was opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::source);
    EXPECT_NE(error.message().find("s3://bucket/model"), std::string::npos) << error.what();
    EXPECT_NE(error.message().find("not a local file"), std::string::npos) << error.what();
  }
}

TEST_P(Conformance, no_descriptor_is_left_open) {
  const Blob blob = blob_of("k", random_bytes(kMiB, 12));
  const auto work = [&] {
    auto engine = make();
    const auto arena = target_for(*engine, blob);
    engine->open(blob);
    drive(*engine, shredded(engine->traits(), blob, arena->data()));
  };
  // Connections are kept for as long as the blob, and the next engine takes them over.
  if (blob.fd < 0) work();
  const size_t before = open_descriptors();
  for (int round = 0; round < 3; ++round) work();
  // A server of the test's own closes its ends in its own time.
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  while (open_descriptors() > before && Clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_LE(open_descriptors(), before);
}

TEST_P(Conformance, the_destructor_returns_soon_with_reads_in_flight) {
  const Blob blob = blob_of("l", random_bytes(8 * kMiB, 13));
  drop_pages(blob);
  auto engine = make(32);
  const auto arena = target_for(*engine, blob);
  engine->open(blob);
  engine->submit(shredded(engine->traits(), blob, arena->data(), 256 * kKiB));
  const auto start = Clock::now();
  engine.reset();
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
}

const std::vector<Layer> kLayers{Layer::plain, Layer::faulty, Layer::retried};

INSTANTIATE_TEST_SUITE_P(Engines, Conformance, ::testing::ValuesIn(all_ways(kLayers)),
                         [](const auto& way) { return name_of(way.param); });
INSTANTIATE_TEST_SUITE_P(Engines, LocalConformance, ::testing::ValuesIn(local_ways(kLayers)),
                         [](const auto& way) { return name_of(way.param); });
INSTANTIATE_TEST_SUITE_P(Pinned, Conformance, ::testing::ValuesIn(pinned(all_ways({Layer::plain}))),
                         [](const auto& way) { return name_of(way.param); });
INSTANTIATE_TEST_SUITE_P(Pinned, LocalConformance,
                         ::testing::ValuesIn(pinned(local_ways({Layer::plain}))),
                         [](const auto& way) { return name_of(way.param); });
INSTANTIATE_TEST_SUITE_P(Device, Conformance, ::testing::ValuesIn(device_ways(kLayers)),
                         [](const auto& way) { return name_of(way.param); });
INSTANTIATE_TEST_SUITE_P(Device, LocalConformance, ::testing::ValuesIn(device_ways(kLayers)),
                         [](const auto& way) { return name_of(way.param); });

}  // namespace
}  // namespace inrush::testing
