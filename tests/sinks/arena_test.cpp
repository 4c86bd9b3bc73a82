#include "inrush/sinks/arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "inrush/base/align.h"

namespace inrush {
namespace {

constexpr uint64_t kBlobSize = 21 * kMiB + 4711;

std::shared_ptr<Arena> arena_of(uint32_t blobs, bool looks) {
  std::vector<Blob> all(blobs);
  for (Blob& blob : all) blob.size = kBlobSize;
  return Arena::reserve(all, looks);
}

// Bytes there that have memory.
uint64_t touched(const Arena& arena, uint32_t blob, uint64_t offset, uint64_t size) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages(size / page);
  EXPECT_EQ(::mincore(arena.at(blob, offset), size, pages.data()), 0);
  return page * static_cast<uint64_t>(std::count_if(pages.begin(), pages.end(),
                                                    [](auto there) { return there & 1; }));
}

TEST(Arena, only_what_is_expected_is_touched_before_it_is_written) {
  const auto arena = arena_of(2, true);
  arena->prepare(0, 0, kBlobSize);
  EXPECT_EQ(touched(*arena, 0, 0, 20 * kMiB), 0U) << "nothing is expected";
  arena->expect(1, 3 * kMiB, 6 * kMiB);
  arena->expect(1, 14 * kMiB, kMiB);
  arena->prepare(0, 0, kBlobSize);
  arena->prepare(1, 16 * kMiB, 4 * kMiB);
  EXPECT_EQ(touched(*arena, 0, 0, 20 * kMiB), 0U);
  EXPECT_EQ(touched(*arena, 1, 0, 20 * kMiB), 0U);
  arena->prepare(1, 0, kBlobSize);
  EXPECT_EQ(touched(*arena, 1, 0, 2 * kMiB), 0U);
  EXPECT_EQ(touched(*arena, 1, 10 * kMiB, 10 * kMiB), 0U) << "no whole huge page fits there";
}

TEST(Arena, what_was_written_stays_whoever_prepares) {
  constexpr uint64_t kPart = 256 * kKiB;
  constexpr uint64_t kParts = kBlobSize / kPart;
  for (const bool looks : {false, true}) {
    const auto arena = arena_of(1, looks);
    arena->expect(0, 0, kBlobSize);
    std::vector<std::thread> threads;
    for (uint64_t first = 0; first < 4; ++first) {
      threads.emplace_back([&arena, first] {
        for (uint64_t i = first; i < kParts; i += 4) {
          arena->prepare(0, i * kPart, kPart);
          std::memset(arena->at(0, i * kPart), static_cast<int>(i + 1), kPart);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    arena->prepare(0, 0, kBlobSize);
    for (uint64_t i = 0; i < kParts; ++i) {
      const std::byte* const part = arena->at(0, i * kPart);
      const auto wanted = static_cast<std::byte>(i + 1);
      EXPECT_TRUE(std::all_of(part, part + kPart, [&](std::byte b) { return b == wanted; })) << i;
    }
  }
}

}  // namespace
}  // namespace inrush
