#include "inrush/shim/crc.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace inrush {
namespace {

struct Known {
  CrcKind kind;
  uint64_t polynomial;  // with its highest power in the lowest bit
  int bits;
  uint64_t check;  // of "123456789", as the catalogue of CRCs has it
};

constexpr Known kKnown[] = {
    {CrcKind::crc32, 0xEDB88320, 32, 0xCBF43926},
    {CrcKind::crc32c, 0x82F63B78, 32, 0xE3069283},
    {CrcKind::crc64nvme, 0x9A6C9329AC4BC9B5, 64, 0xAE8B14860A799888},
};

class Crcs : public ::testing::TestWithParam<Known> {
 protected:
  static uint64_t bit_by_bit(std::span<const std::byte> data) {
    const uint64_t ones = ~0ULL >> (64 - GetParam().bits);
    uint64_t state = ones;
    for (const std::byte byte : data) {
      state ^= static_cast<uint64_t>(byte);
      for (int bit = 0; bit < 8; ++bit) {
        state = state >> 1 ^ ((state & 1) != 0 ? GetParam().polynomial : 0);
      }
    }
    return state ^ ones;
  }

  static uint64_t of(std::span<const std::byte> data, uint64_t crc = 0) {
    return crc_of(GetParam().kind, crc, data);
  }
};

std::vector<std::byte> random_bytes(size_t size) {
  std::mt19937_64 random(size);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST_P(Crcs, of_the_catalogues_text) {
  EXPECT_EQ(of(std::as_bytes(std::span(std::string_view("123456789")))), GetParam().check);
  EXPECT_EQ(of({}), 0U);
  EXPECT_EQ(crc_size(GetParam().kind) * 8, static_cast<size_t>(GetParam().bits));
}

TEST_P(Crcs, of_every_size_and_alignment_are_what_the_definition_says) {
  for (size_t size = 0; size < 600; ++size) {
    const auto bytes = random_bytes(size + 3);
    const auto part = std::span(bytes).subspan(size % 4, size);
    ASSERT_EQ(of(part), bit_by_bit(part)) << size;
  }
}

TEST_P(Crcs, are_the_same_by_every_way_that_the_cpu_has) {
  const auto bytes = random_bytes(100'000);
  for (const size_t size : {255U, 256U, 257U, 511U, 512U, 4096U, 65'536U, 99'999U}) {
    const auto part = std::span(bytes).last(size);
    const uint64_t right = bit_by_bit(part);
    for (const FoldWidth width : {FoldWidth::none, FoldWidth::one, FoldWidth::four}) {
      if (width > widest_fold()) continue;
      EXPECT_EQ(crc_of(GetParam().kind, 0, part, width), right) << size;
    }
  }
}

TEST_P(Crcs, of_parts_are_continued_and_joined) {
  const auto bytes = random_bytes(5000);
  const uint64_t whole = bit_by_bit(bytes);
  for (const size_t cut : {0U, 1U, 63U, 64U, 65U, 1000U, 4999U, 5000U}) {
    const auto first = std::span(bytes).first(cut);
    const auto second = std::span(bytes).subspan(cut);
    EXPECT_EQ(of(second, of(first)), whole) << cut;
    EXPECT_EQ(crc_joined(GetParam().kind, of(first), of(second), second.size()), whole) << cut;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Crcs, ::testing::ValuesIn(kKnown));

}  // namespace
}  // namespace inrush
