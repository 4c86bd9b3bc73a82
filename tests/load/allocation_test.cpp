// When a load asks its caller for memory, and for how much of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/load.h"
#include "tests/load/fixture.h"

namespace inrush {
namespace {

using test::Bytes;
using test::Folder;

Bytes bytes_of(const Tensor& tensor) {
  return {tensor.memory.data, tensor.memory.data + tensor.memory.size};
}

// Memory as an allocator of devices' gives it, and how much of it there was at once.
class Given {
 public:
  std::vector<Memory> give(std::span<const MemoryRequest> requests) {
    std::vector<Memory> answer;
    for (const MemoryRequest& request : requests) {
      live_ += request.size;
      most_ = std::max(most_, live_.load());
      std::shared_ptr<std::byte> bytes(new std::byte[request.size],
                                       [this, size = request.size](auto* at) {
                                         delete[] at;
                                         live_ -= size;
                                       });
      answer.push_back({bytes.get(), request.size, MemoryKind::host, -1, bytes});
    }
    return answer;
  }
  [[nodiscard]] uint64_t most() const { return most_; }

 private:
  std::atomic<uint64_t> live_{0};
  uint64_t most_ = 0;
};

TEST(Allocation, small_tensors_between_large_ones_do_not_hide_how_much_is_ahead) {
  Folder folder;
  std::vector<size_t> sizes;
  for (int i = 0; i < 24; ++i) sizes.push_back(i % 2 == 0 ? 2 * kMiB : 16 * kKiB);
  folder.shard("a.safetensors", "a.", sizes);
  Given given;
  LoadOptions options;
  options.budget = 4 * kMiB;
  options.allocator = [&](auto requests) { return given.give(requests); };
  {
    Load load(Checkpoint::open(folder.path()), options);
    while (load.next()) {  // and drops it
    }
  }
  EXPECT_GE(given.most(), 4 * kMiB);
  EXPECT_LE(given.most(), 10 * kMiB) << "of 24 MiB in all";
}

TEST(Allocation, a_stream_of_small_tensors_asks_for_many_at_a_time) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(200, 400 * kKiB));
  Given given;
  LoadOptions options;
  options.budget = 32 * kMiB;
  size_t calls = 0;
  options.allocator = [&](auto requests) {
    ++calls;
    return given.give(requests);
  };
  Load load(Checkpoint::open(folder.path()), options);
  size_t count = 0;
  while (const auto tensor = load.next()) {
    EXPECT_EQ(bytes_of(*tensor), folder.expected[tensor->name]);
    ++count;
  }
  EXPECT_EQ(count, 200U);
  EXPECT_LE(calls, 16U) << "48 MiB come after the first 32";
  EXPECT_LE(given.most(), options.budget + 2 * kMiB);
}

TEST(Allocation, a_load_that_collects_reads_while_it_is_given_memory) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(16, kMiB));
  Given given;
  std::atomic<uint64_t> come{0};
  int calls = 0;
  bool read_meanwhile = false;
  LoadOptions options;
  options.budget = 4 * kMiB;
  options.collect = true;
  options.progress = [&](const Progress& progress) { come = progress.bytes_done; };
  options.allocator = [&](auto requests) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    ++calls;
    while (calls > 1 && come == 0 && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    read_meanwhile |= come > 0;
    return given.give(requests);
  };
  Load load(Checkpoint::open(folder.path()), options);
  EXPECT_GT(calls, 1);
  EXPECT_TRUE(read_meanwhile);
  size_t count = 0;
  while (const auto tensor = load.next()) {
    EXPECT_EQ(bytes_of(*tensor), folder.expected[tensor->name]);
    ++count;
  }
  EXPECT_EQ(count, 16U);
}

TEST(Allocation, memory_that_runs_out_while_lanes_read_ends_the_load) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(16, kMiB));
  Given given;
  LoadOptions options;
  options.budget = 4 * kMiB;
  options.collect = true;
  int calls = 0;
  options.allocator = [&](auto requests) {
    if (++calls == 3) throw Error(ErrorCode::memory, "no more");
    return given.give(requests);
  };
  try {
    const Load load(Checkpoint::open(folder.path()), options);
    ADD_FAILURE() << "it began";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "no more");
  }
}

}  // namespace
}  // namespace inrush
