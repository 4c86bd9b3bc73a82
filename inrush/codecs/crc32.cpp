// By tables, eight bytes at a step; where the CPU can multiply without carry, only what that
// leaves.
#include "inrush/codecs/crc32.h"

#include <array>
#include <bit>
#include <cstring>

#include "inrush/shim/crc32_fold.h"

namespace inrush {
namespace {

constexpr uint32_t kPolynomial = 0xEDB88320;  // reflected

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? kPolynomial : 0);
    tables[0][i] = value;
  }
  for (size_t t = 1; t < tables.size(); ++t) {
    for (size_t i = 0; i < 256; ++i) {
      const uint32_t before = tables[t - 1][i];
      tables[t][i] = before >> 8 ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

uint32_t by_tables(uint32_t state, std::span<const std::byte> data) {
  static_assert(std::endian::native == std::endian::little);
  while (data.size() >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, data.data(), sizeof word);
    word ^= state;
    state = 0;
    for (size_t i = 0; i < 8; ++i) state ^= kTables[7 - i][word >> (8 * i) & 0xFF];
    data = data.subspan(8);
  }
  for (const std::byte byte : data) {
    state = state >> 8 ^ kTables[0][(state ^ static_cast<uint32_t>(byte)) & 0xFF];
  }
  return state;
}

}  // namespace

uint32_t crc32(uint32_t crc, std::span<const std::byte> data) {
  uint32_t state = ~crc;
  const size_t whole = data.size() / kFoldStep * kFoldStep;
  if (whole > 0 && can_fold_crc32()) {
    state = by_tables(0, fold_crc32(state, data.first(whole)));
    data = data.subspan(whole);
  }
  return ~by_tables(state, data);
}

}  // namespace inrush
