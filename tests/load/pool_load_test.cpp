// Loads whose tensors are views of a pool: memory is used again, and what is kept stays as it was.
#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>

#include "inrush/base/align.h"
#include "inrush/load.h"
#include "tests/load/fixture.h"

namespace inrush {
namespace {

using test::Bytes;
using test::Folder;

Bytes bytes_in(const Tensor& tensor) {
  return {tensor.memory.data, tensor.memory.data + tensor.memory.size};
}

LoadOptions pooled(const char* backend, uint64_t pool) {
  LoadOptions options;
  if (*backend != '\0') options.choice.backend = {backend};
  options.pool = pool;
  options.budget = 6 * kMiB;
  return options;
}

constexpr std::array kBackends{"", "URING", "PREAD", "PREAD_BUFFERED", "MMAP"};

TEST(PoolLoad, a_few_blocks_serve_a_whole_checkpoint) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(24, kMiB), 3);
  folder.make_cold();
  for (const char* backend : kBackends) {
    Load load(Checkpoint::open(folder.path()), pooled(backend, 4 * kMiB));
    std::set<const std::byte*> places;
    while (auto tensor = load.next()) {
      EXPECT_EQ(bytes_in(*tensor), folder.expected[tensor->name]) << backend;
      EXPECT_FALSE(tensor->mapped);
      places.insert(tensor->memory.data);
    }
    EXPECT_LE(places.size(), 8U) << backend;
  }
}

TEST(PoolLoad, what_the_caller_keeps_is_never_overwritten) {
  Folder folder;
  std::mt19937 random(11);
  std::vector<size_t> sizes;
  for (int i = 0; i < 30; ++i) sizes.push_back(1 + random() % (300 * kKiB));
  folder.shard("a.safetensors", "a.", sizes, 5);
  folder.shard("b.safetensors", "b.", sizes, 2);
  for (const char* backend : kBackends) {
    Load load(Checkpoint::open(folder.path()), pooled(backend, 3 * kMiB));
    std::deque<Tensor> kept;
    while (auto tensor = load.next()) {
      kept.push_back(std::move(*tensor));
      if (kept.size() > 6) kept.erase(kept.begin() + random() % 6);
      for (const Tensor& one : kept) ASSERT_EQ(bytes_in(one), folder.expected[one.name]) << backend;
    }
  }
}

TEST(PoolLoad, a_caller_who_keeps_all_is_told_at_once_and_may_go_on) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(12, kMiB));
  Load load(Checkpoint::open(folder.path()), pooled("", 4 * kMiB));
  std::vector<Tensor> kept;
  const auto start = Clock::now();
  try {
    while (auto tensor = load.next()) kept.push_back(std::move(*tensor));
    FAIL() << "4 MiB held 12";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::memory);
    EXPECT_NE(error.message().find("the caller keeps"), std::string::npos) << error.message();
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
  EXPECT_GE(kept.size(), 3U);
  for (const Tensor& one : kept) EXPECT_EQ(bytes_in(one), folder.expected[one.name]);
  size_t count = kept.size();
  kept.clear();
  while (auto tensor = load.next()) {
    EXPECT_EQ(bytes_in(*tensor), folder.expected[tensor->name]);
    ++count;
  }
  EXPECT_EQ(count, 12U);
}

TEST(PoolLoad, the_least_pool_lets_every_caller_keep_one_tensor) {
  Folder folder;
  // Large tensors that share a range with small ones on both sides.
  folder.shard("a.safetensors", "a.", {7 * kMiB + 1, 13, 5, 9 * kMiB + 3, 100, 8 * kMiB, 1, 0, 77});
  for (const Order order : {Order::file, Order::ready}) {
    LoadOptions options = pooled("", 1);
    options.order = order;
    Load load(Checkpoint::open(folder.path()), options);
    std::optional<Tensor> last;
    size_t count = 0;
    while (auto tensor = load.next()) {
      if (last) {
        EXPECT_EQ(bytes_in(*last), folder.expected[last->name]);
      }
      last = std::move(tensor);
      ++count;
    }
    EXPECT_EQ(count, 9U);
  }
}

TEST(PoolLoad, tensors_outlive_the_load) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {kMiB, 2 * kMiB});
  std::vector<Tensor> kept;
  {
    Load load(Checkpoint::open(folder.path()), pooled("", 16 * kMiB));
    while (auto tensor = load.next()) kept.push_back(std::move(*tensor));
  }
  for (const Tensor& one : kept) EXPECT_EQ(bytes_in(one), folder.expected[one.name]);
}

TEST(PoolLoad, memory_of_the_caller_goes_beside_it) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {kMiB, 3 * kMiB, 77});
  Bytes mine(3 * kMiB);
  LoadOptions options = pooled("", kMiB);
  options.out["a.1"].data = mine.data();
  options.out["a.1"].size = mine.size();
  Load load(Checkpoint::open(folder.path()), options);
  while (auto tensor = load.next()) {
    EXPECT_EQ(bytes_in(*tensor), folder.expected[tensor->name]);
  }
  EXPECT_EQ(mine, folder.expected["a.1"]);
}

TEST(PoolLoad, a_load_that_keeps_everything_takes_no_pool) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {100});
  LoadOptions options = pooled("", kMiB);
  options.collect = true;
  EXPECT_THROW(Load(Checkpoint::open(folder.path()), options), Error);
}

}  // namespace
}  // namespace inrush
