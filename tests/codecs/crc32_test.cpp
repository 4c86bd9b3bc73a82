#include "inrush/codecs/crc32.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

namespace inrush {
namespace {

uint32_t bit_by_bit(std::span<const std::byte> data) {
  uint32_t state = ~0U;
  for (const std::byte byte : data) {
    state ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = state >> 1 ^ ((state & 1) != 0 ? 0xEDB88320 : 0);
  }
  return ~state;
}

std::vector<std::byte> random_bytes(size_t size) {
  std::mt19937_64 random(size);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(Crc32, of_known_texts) {
  const auto of = [](std::string_view text) { return crc32(0, std::as_bytes(std::span(text))); };
  EXPECT_EQ(of(""), 0U);
  EXPECT_EQ(of("123456789"), 0xcbf43926U);
  EXPECT_EQ(of("The quick brown fox jumps over the lazy dog"), 0x414fa339U);
}

TEST(Crc32, of_every_size_and_alignment_is_what_the_definition_says) {
  for (size_t size = 0; size < 600; ++size) {
    const auto bytes = random_bytes(size + 3);
    const auto part = std::span(bytes).subspan(size % 4, size);
    ASSERT_EQ(crc32(0, part), bit_by_bit(part)) << size;
  }
}

TEST(Crc32, of_parts_goes_on_where_the_last_one_ended) {
  const auto bytes = random_bytes(5000);
  for (const size_t cut : {0U, 1U, 63U, 64U, 65U, 1000U, 4999U, 5000U}) {
    const uint32_t first = crc32(0, std::span(bytes).first(cut));
    EXPECT_EQ(crc32(first, std::span(bytes).subspan(cut)), bit_by_bit(bytes)) << cut;
  }
}

}  // namespace
}  // namespace inrush
