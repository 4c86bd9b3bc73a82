#include "inrush/save/parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../files.h"
#include "inrush/base/align.h"

namespace inrush::test {
namespace {

// Keeps what it is given, and what it was asked for.
class MemoryWriter final : public Writer {
 public:
  explicit MemoryWriter(const WriterTraits& traits) : traits_(traits) {}
  [[nodiscard]] WriterTraits traits() const override { return traits_; }
  void create(uint64_t size) override { bytes.resize(size); }
  void write(uint64_t offset, std::span<const std::byte> data) override {
    const std::scoped_lock lock(mutex_);
    if (offset == fails_at) throw Error(ErrorCode::source, "write: no");
    std::copy_n(reinterpret_cast<const char*>(data.data()), data.size(), bytes.data() + offset);
    offsets.push_back(offset);
    sizes.insert(data.size());
    aligned = aligned && is_aligned(data.data(), traits_.memory_align);
    borrowed = borrowed || data.data() == source;
  }
  void finish() override { finished = true; }
  void abort() noexcept override { aborted = true; }

  std::string bytes;
  std::vector<uint64_t> offsets;
  std::set<size_t> sizes;
  uint64_t fails_at = UINT64_MAX;
  const std::byte* source = nullptr;
  bool aligned = true;
  bool borrowed = false;
  bool finished = false;
  bool aborted = false;

 private:
  WriterTraits traits_;
  std::mutex mutex_;
};

const std::byte* data_of(const std::string& text) {
  return reinterpret_cast<const std::byte*>(text.data());
}

TEST(WriteParts, puts_extents_of_any_size_together_in_parts_of_one_size) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 50; ++round) {
    std::string whole;
    std::vector<std::string> pieces;
    for (size_t i = 0; i < 1 + random() % 20; ++i) {
      pieces.push_back(random_text(random() % 3 == 0 ? 0 : random() % 5000, random()));
      whole += pieces.back();
    }
    std::vector<Extent> extents;
    for (const std::string& piece : pieces) {
      Extent extent{piece.size(), data_of(piece), {}};
      if (random() % 2 == 0) {  // fetched when due
        extent.data = nullptr;
        extent.read = [&piece](uint64_t offset, std::span<std::byte> target) {
          std::copy_n(data_of(piece) + offset, target.size(), target.data());
        };
      }
      extents.push_back(extent);
    }
    WriterTraits traits;
    traits.best_part = 512 << (random() % 4);
    traits.memory_align = 512;
    traits.width = 1 + random() % 4;
    MemoryWriter writer(traits);
    write_parts(writer, extents);
    ASSERT_EQ(writer.bytes, whole) << round;
    EXPECT_TRUE(writer.finished);
    EXPECT_TRUE(writer.aligned);
    for (const uint64_t offset : writer.offsets) EXPECT_EQ(offset % traits.best_part, 0U);
  }
}

TEST(WriteParts, hands_over_memory_that_needs_no_copy) {
  const std::string text = random_text(8192);
  WriterTraits traits;
  traits.best_part = 4096;
  MemoryWriter writer(traits);
  writer.source = data_of(text);
  const Extent extent{text.size(), data_of(text), {}};
  write_parts(writer, {&extent, 1});
  EXPECT_TRUE(writer.borrowed);
  EXPECT_EQ(writer.bytes, text);
}

TEST(WriteParts, goes_up_in_order_and_in_few_parts_where_the_writer_must_have_it_so) {
  const std::string text = random_text(100'000);
  WriterTraits traits{false, 5000, 20'000, 12, false};
  traits.best_part = 1;
  traits.width = 4;
  MemoryWriter writer(traits);
  const Extent extent{text.size(), data_of(text), {}};
  write_parts(writer, {&extent, 1});
  EXPECT_EQ(writer.bytes, text);
  EXPECT_TRUE(std::is_sorted(writer.offsets.begin(), writer.offsets.end()));
  EXPECT_EQ(writer.offsets.size(), 12U);
}

TEST(WriteParts, ends_nothing_when_a_write_or_an_extent_fails) {
  const std::string text = random_text(10'000);
  WriterTraits traits;
  traits.best_part = 1000;
  traits.width = 3;
  MemoryWriter writer(traits);
  writer.fails_at = 4000;
  const Extent extent{text.size(), data_of(text), {}};
  EXPECT_THROW(write_parts(writer, {&extent, 1}), Error);
  MemoryWriter other(traits);
  const Extent broken{5000, nullptr, [](uint64_t, std::span<std::byte>) {
                        throw Error(ErrorCode::data, "read: gone");
                      }};
  EXPECT_THROW(write_parts(other, {&broken, 1}), Error);
  for (const auto* each : {&writer, &other}) {
    EXPECT_FALSE(each->finished);
    EXPECT_TRUE(each->aborted);
  }
}

TEST(WriteParts, an_empty_whole_is_created_and_finished) {
  MemoryWriter writer({});
  write_parts(writer, {});
  EXPECT_TRUE(writer.finished);
  EXPECT_TRUE(writer.offsets.empty());
}

}  // namespace
}  // namespace inrush::test
