#include "inrush/load.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "inrush/base/align.h"
#include "tests/load/fixture.h"

namespace inrush {
namespace {

using test::Bytes;
using test::Folder;

Bytes bytes_of(const Tensor& tensor) {
  return {tensor.memory.data, tensor.memory.data + tensor.memory.size};
}

Deadline in(double seconds) {
  return Clock::now() + std::chrono::milliseconds(static_cast<int>(seconds * 1000));
}

struct Case {
  std::string backend;
  bool collect;
  uint64_t budget;
  size_t pad;
};

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return fmt::format("{}_{}_{}k_pad{}", c.backend.empty() ? "auto" : c.backend,
                     c.collect ? "collect" : "stream", c.budget / 1024, c.pad);
}

class EveryWay : public testing::TestWithParam<Case> {};

TEST_P(EveryWay, delivers_every_byte_in_file_order) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {3, 5 * kMiB + 17, 0, 1, 4096, 70000}, GetParam().pad);
  folder.shard("b.safetensors", "b.", {9 * kMiB, 123457}, GetParam().pad + 3);
  folder.make_cold();
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  LoadOptions options;
  if (!GetParam().backend.empty()) {
    options.choice.backend = {GetParam().backend};
    options.choice.strict = true;
  }
  options.collect = GetParam().collect;
  options.budget = GetParam().budget;
  options.trace = true;
  Load load(checkpoint, options);
  std::vector<std::string> order;
  while (auto tensor = load.next()) {
    EXPECT_EQ(bytes_of(*tensor), folder.expected[tensor->name]) << tensor->name;
    order.push_back(tensor->name);
  }
  const std::vector<std::string> wanted{"a.0", "a.1", "a.2", "a.3", "a.4", "a.5", "b.0", "b.1"};
  EXPECT_EQ(order, wanted);
  const LoadStats stats = load.stats();
  EXPECT_EQ(stats.tensors, 8U);
  EXPECT_LE(stats.peak_staging, GetParam().budget);
  EXPECT_EQ(stats.retries, 0U);
  EXPECT_FALSE(stats.why.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Load, EveryWay,
    testing::Values(Case{"", true, 64 * kMiB, 0}, Case{"", false, 4 * kMiB, 5},
                    Case{"URING", true, 64 * kMiB, 0}, Case{"URING", false, 4 * kMiB, 1},
                    Case{"AIO", true, 64 * kMiB, 0}, Case{"AIO", false, 4 * kMiB, 7},
                    Case{"PREAD", true, 64 * kMiB, 0}, Case{"PREAD", false, 2 * kMiB, 2},
                    Case{"URING_BUFFERED", false, 4 * kMiB, 0},
                    Case{"AIO_BUFFERED", false, 4 * kMiB, 0},
                    Case{"PREAD_BUFFERED", true, 64 * kMiB, 3},
                    Case{"PREAD_BUFFERED", false, 2 * kMiB, 0}, Case{"MMAP", true, 64 * kMiB, 0},
                    Case{"MMAP", false, 4 * kMiB, 1}),
    name_of_case);

TEST(Load, tensors_outlive_the_load_and_the_checkpoint) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {3 * kMiB, 100, 2 * kMiB});
  for (const char* backend : {"URING", "MMAP", "PREAD_BUFFERED"}) {
    std::vector<Tensor> kept;
    {
      LoadOptions options;
      options.choice.backend = {backend};
      const Checkpoint checkpoint = Checkpoint::open(folder.path());
      Load load(checkpoint, options);
      while (auto tensor = load.next()) kept.push_back(std::move(*tensor));
    }
    kept.erase(kept.begin());
    for (const Tensor& tensor : kept) EXPECT_EQ(bytes_of(tensor), folder.expected[tensor.name]);
  }
}

TEST(Load, memory_of_the_caller_is_filled_in_place) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {5 * kMiB + 11, 333, 4096}, 1);
  for (const char* backend : {"URING", "MMAP", "PREAD", "PREAD_BUFFERED"}) {
    for (const bool collect : {false, true}) {
      std::map<uint32_t, Bytes> given;
      LoadOptions options;
      options.choice.backend = {backend};
      options.collect = collect;
      options.allocator = [&](std::span<const MemoryRequest> requests) {
        std::vector<Memory> answer;
        for (const MemoryRequest& request : requests) {
          Bytes& bytes = given[request.target];
          bytes.resize(request.size + 1);
          Memory memory;
          memory.data = bytes.data();
          memory.size = request.size;
          answer.push_back(memory);
        }
        return answer;
      };
      Load load(Checkpoint::open(folder.path()), options);
      uint32_t index = 0;
      while (auto tensor = load.next()) {
        EXPECT_EQ(tensor->memory.data, given[index++].data());
        EXPECT_EQ(bytes_of(*tensor), folder.expected[tensor->name]) << backend;
      }
    }
  }
}

TEST(Load, an_out_tensor_is_filled_and_the_rest_is_ours) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {kMiB, 3 * kMiB, 77});
  Bytes mine(3 * kMiB);
  LoadOptions options;
  Memory memory;
  memory.data = mine.data();
  memory.size = mine.size();
  options.out["a.1"] = memory;
  Load load(Checkpoint::open(folder.path()), options);
  while (auto tensor = load.next()) {
    EXPECT_EQ(bytes_of(*tensor), folder.expected[tensor->name]);
  }
  EXPECT_EQ(mine, folder.expected["a.1"]);
}

TEST(Load, an_out_tensor_that_nothing_or_more_than_one_would_fill_is_refused) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {kMiB, 77});
  const auto checkpoint = Checkpoint::open(folder.path());
  Bytes mine(77);
  const auto refusal = [&](const std::string& name, const std::vector<Selection>& selections) {
    LoadOptions options;
    options.selections = selections;
    options.out[name].data = mine.data();
    options.out[name].size = mine.size();
    try {
      const Load load(checkpoint, options);
    } catch (const Error& error) {
      return error.code() == ErrorCode::usage ? error.message() : "another code";
    }
    return std::string("none");
  };
  EXPECT_EQ(refusal("b.0", {}), "out: no tensor \"b.0\" is loaded");
  EXPECT_EQ(refusal("a.1", {{{{.tensor = 0}}}}), "out: no tensor \"a.1\" is loaded");
  EXPECT_EQ(refusal("a.1", {{{{.tensor = 1}}}, {{{.tensor = 1}}}}),
            "out: several consumers want \"a.1\", whose memory is one");
  EXPECT_EQ(refusal("a.1", {}), "none");
}

TEST(Load, a_budget_below_the_least_is_an_error_that_names_it) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {3 * kMiB});
  LoadOptions options;
  options.budget = 1000;
  try {
    Load load(Checkpoint::open(folder.path()), options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::memory);
    EXPECT_NE(error.message().find("below the least"), std::string::npos) << error.message();
  }
}

TEST(Load, cancel_ends_a_waiting_consumer_at_once) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(40, kMiB));
  LoadOptions options;
  options.budget = 4 * kMiB;
  options.choice.backend = {"PREAD"};
  Load load(Checkpoint::open(folder.path()), options);
  ASSERT_TRUE(load.next());
  std::thread other([&] { load.cancel(); });
  const auto before = Clock::now();
  try {
    while (load.next()) {
    }
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::cancelled);
  }
  other.join();
  EXPECT_LT(Clock::now() - before, std::chrono::seconds(10));
}

TEST(Load, a_streaming_load_waits_for_its_consumer) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(64, kMiB));
  LoadOptions options;
  options.budget = 8 * kMiB;
  options.choice.mapping = MappingRule::never;
  Load load(Checkpoint::open(folder.path()), options);
  ASSERT_TRUE(load.next());
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LE(load.stats().bytes_read, 12 * kMiB);
  uint64_t count = 1;
  while (auto tensor = load.next()) {
    EXPECT_EQ(bytes_of(*tensor), folder.expected[tensor->name]);
    ++count;
  }
  EXPECT_EQ(count, 64U);
}

TEST(Load, a_file_rewritten_in_mid_load_is_an_error) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(32, kMiB));
  for (const char* backend : {"URING", "MMAP", "PREAD_BUFFERED"}) {
    LoadOptions options;
    options.budget = 4 * kMiB;
    options.choice.backend = {backend};
    Load load(Checkpoint::open(folder.path()), options);
    ASSERT_TRUE(load.next());
    {
      std::fstream file(folder.path() + "/a.safetensors", std::ios::in | std::ios::out);
      file.seekp(5 * kMiB);
      file << "changed";
    }
    try {
      while (load.next()) {
      }
      ADD_FAILURE() << backend << " did not notice";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::data);
      EXPECT_NE(error.message().find("a.safetensors"), std::string::npos) << error.message();
    }
  }
}

TEST(Load, a_file_that_shrinks_in_mid_load_is_an_error) {
  for (const char* backend : {"", "URING", "MMAP", "PREAD", "PREAD_BUFFERED", "AIO"}) {
    Folder folder;
    folder.shard("a.safetensors", "a.", std::vector<size_t>(64, kMiB));
    LoadOptions options;
    options.budget = 4 * kMiB;
    if (*backend != 0) options.choice.backend = {backend};
    Load load(Checkpoint::open(folder.path()), options);
    ASSERT_TRUE(load.next());
    std::filesystem::resize_file(folder.path() + "/a.safetensors", 3 * kMiB);
    EXPECT_THROW(
        {
          while (load.next()) {
          }
        },
        Error)
        << backend;
  }
}

TEST(Load, wait_needs_no_consumer_when_it_collects) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(20, kMiB));
  LoadOptions options;
  options.collect = true;
  options.budget = 4 * kMiB;
  options.order = Order::ready;
  Load load(Checkpoint::open(folder.path()), options);
  EXPECT_TRUE(load.wait(in(30)));
  std::map<std::string, bool> seen;
  while (auto tensor = load.next()) {
    EXPECT_EQ(bytes_of(*tensor), folder.expected[tensor->name]);
    seen[tensor->name] = true;
  }
  EXPECT_EQ(seen.size(), 20U);
}

// A checksum that anyone can recompute: the sum of all bytes, in order or not.
class SumDecoder final : public Decoder {
 public:
  explicit SumDecoder(DecodeOrder order) : order_(order) {}
  [[nodiscard]] DecoderTraits traits() const override { return {4096, order_, false}; }
  void update(uint64_t offset, std::span<std::byte> data) override {
    if (order_ == DecodeOrder::in_order) {
      EXPECT_EQ(offset, expected_);
    }
    expected_ = offset + data.size();
    for (const std::byte byte : data) sum_ += static_cast<uint64_t>(byte);
  }
  std::string finish() override { return std::to_string(sum_); }

 private:
  DecodeOrder order_;
  uint64_t expected_ = 0;
  uint64_t sum_ = 0;
};

TEST(Load, decoders_see_every_byte_once) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {5 * kMiB + 9, 0, 17, 4096, 3 * kMiB});
  for (const DecodeOrder order : {DecodeOrder::in_order, DecodeOrder::any_order}) {
    for (const bool collect : {false, true}) {
      LoadOptions options;
      options.collect = collect;
      options.budget = 8 * kMiB;
      options.decoder = [order](const TensorInfo&) { return std::make_unique<SumDecoder>(order); };
      Load load(Checkpoint::open(folder.path()), options);
      while (load.next()) {
      }
      const auto digests = load.digests();
      EXPECT_EQ(digests.size(), 5U);
      for (const auto& [name, bytes] : folder.expected) {
        uint64_t sum = 0;
        for (const std::byte byte : bytes) sum += static_cast<uint64_t>(byte);
        EXPECT_EQ(digests.at(name), std::to_string(sum)) << name;
      }
    }
  }
}

TEST(Load, several_consumers_get_their_own_copies) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {2 * kMiB + 4, 999, kMiB});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  LoadOptions options;
  Selection all;
  for (uint32_t i = 0; i < 3; ++i) all.wants.push_back({i, {}});
  Selection rows;
  rows.wants.push_back({0, {{kMiB, 2 * kMiB, 1}}});
  options.selections = {all, rows, all};
  Load load(checkpoint, options);
  std::map<uint32_t, std::vector<Tensor>> got;
  while (auto tensor = load.next()) got[tensor->consumer].push_back(std::move(*tensor));
  ASSERT_EQ(got[0].size(), 3U);
  ASSERT_EQ(got[1].size(), 1U);
  ASSERT_EQ(got[2].size(), 3U);
  std::memset(got[0][0].memory.data, 0, got[0][0].memory.size);
  for (const Tensor& tensor : got[2]) EXPECT_EQ(bytes_of(tensor), folder.expected[tensor.name]);
  const Bytes& first = folder.expected["a.0"];
  EXPECT_EQ(bytes_of(got[1][0]), Bytes(first.begin() + kMiB, first.begin() + 2 * kMiB));
}

}  // namespace
}  // namespace inrush
