#include "inrush/sinks/pool.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

TEST(Pool, gives_no_more_than_it_has_and_again_what_died) {
  const auto pool = Pool::make(10 * kMiB);
  auto first = pool->take(6 * kMiB, 0);
  ASSERT_TRUE(first);
  const auto* const address = first->data;
  EXPECT_FALSE(pool->take(6 * kMiB, 0));
  auto second = pool->take(4 * kMiB, 0);
  ASSERT_TRUE(second);
  EXPECT_EQ(pool->held(), 10 * kMiB);
  EXPECT_EQ(pool->held_count(), 2U);
  first.reset();
  const auto third = pool->take(6 * kMiB, 0);
  ASSERT_TRUE(third);
  EXPECT_EQ(third->data, address);
}

TEST(Pool, memory_is_congruent_to_the_file) {
  const auto pool = Pool::make(kMiB);
  for (const uint64_t offset : {0ULL, 8ULL, 4095ULL, 4096ULL, 123'457ULL}) {
    const auto memory = pool->take(5000, offset);
    ASSERT_TRUE(memory);
    EXPECT_EQ((reinterpret_cast<uintptr_t>(memory->data) - offset) % 4096, 0U);
    std::memset(memory->data, 1, memory->size);
  }
}

TEST(Pool, memory_is_aligned_where_the_file_is_not) {
  const auto pool = Pool::make(kMiB);
  for (const uint64_t offset : {1ULL, 4ULL, 4095ULL, 123'457ULL}) {
    const auto memory = pool->take(5000, offset, 8);
    ASSERT_TRUE(memory);
    EXPECT_TRUE(is_aligned(memory->data, 8));
    std::memset(memory->data, 1, memory->size);
  }
}

TEST(Pool, memory_outlives_who_made_it) {
  auto pool = Pool::make(kMiB);
  const auto memory = pool->take(4096, 0);
  pool.reset();
  std::memset(memory->data, 7, memory->size);
}

TEST(Pool, what_is_held_is_never_given_twice) {
  const auto pool = Pool::make(4 * kMiB);
  const auto work = [&](unsigned seed) {
    std::mt19937 random(seed);
    std::vector<Memory> kept;
    for (int i = 0; i < 2000; ++i) {
      if (!kept.empty() && random() % 2 == 0) {
        const Memory memory = std::move(kept.back());
        kept.pop_back();
        for (uint64_t at = 0; at < memory.size; at += 511) {
          ASSERT_EQ(memory.data[at], static_cast<std::byte>(seed));
        }
      } else if (auto memory = pool->take(1 + random() % 65'536, random() % 8192)) {
        std::memset(memory->data, static_cast<int>(seed), memory->size);
        kept.push_back(std::move(*memory));
      }
    }
  };
  std::array<std::thread, 4> threads;
  for (unsigned i = 0; i < threads.size(); ++i) threads[i] = std::thread(work, i + 1);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(pool->held(), 0U);
}

TEST(Pool, its_allocator_answers_what_fits_and_refuses_what_is_due_at_once) {
  const Allocator allocate = pool_allocator(kMiB);
  std::vector<MemoryRequest> requests(3);
  for (MemoryRequest& request : requests) request.size = 400 * kKiB;
  requests[0].due = true;
  requests[2].name = "third";
  const std::vector<Memory> kept = allocate(requests);
  EXPECT_EQ(kept.size(), 2U);
  requests[2].due = true;
  try {
    static_cast<void>(allocate({&requests[2], 1}));
    FAIL() << "it was given memory that is held";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::memory);
    EXPECT_NE(error.message().find("tensor third needs 409600 bytes, and 819200 of the buffer's "
                                   "1048576 are held by 2 tensors"),
              std::string::npos)
        << error.message();
  }
}

}  // namespace
}  // namespace inrush
