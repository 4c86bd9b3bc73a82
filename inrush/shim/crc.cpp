// By tables, eight bytes at a step; where the CPU can multiply without carry, only what that
// leaves. Polynomials, like all else here, have their highest power in the lowest bit.
#include "inrush/shim/crc.h"

#include <array>
#include <bit>
#include <cstring>

namespace inrush {
namespace {

using Tables = std::array<std::array<uint64_t, 256>, 8>;

// A polynomial modulo another of `bits` bits, and powers of x modulo that.
struct Field {
  uint64_t modulus;
  int bits;

  [[nodiscard]] constexpr uint64_t one() const { return 1ULL << (bits - 1); }

  [[nodiscard]] constexpr uint64_t times_x(uint64_t value) const {
    return value >> 1 ^ ((value & 1) != 0 ? modulus : 0);
  }

  [[nodiscard]] constexpr uint64_t times(uint64_t a, uint64_t b) const {
    uint64_t product = 0;
    for (uint64_t bit = one(); bit != 0; bit >>= 1) {
      if ((a & bit) != 0) product ^= b;
      b = times_x(b);
    }
    return product;
  }

  // x^power, with its bits where a multiplication of 64 by 64 bits wants them.
  [[nodiscard]] constexpr uint64_t power(int exponent) const {
    uint64_t value = one();
    for (int i = 0; i < exponent; ++i) value = times_x(value);
    return value << (64 - bits);
  }
};

struct Crc {
  Field field;
  const char* name;
  Tables tables{};
  FoldConstants folding{};

  constexpr Crc(uint64_t modulus, int bits, const char* named) : field{modulus, bits}, name(named) {
    for (uint64_t i = 0; i < 256; ++i) {
      uint64_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = field.times_x(value);
      tables[0][i] = value;
    }
    for (size_t t = 1; t < tables.size(); ++t) {
      for (size_t i = 0; i < 256; ++i) {
        const uint64_t before = tables[t - 1][i];
        tables[t][i] = before >> 8 ^ tables[0][before & 0xFF];
      }
    }
    folding = {{field.power(2048 + 63), field.power(2048 - 1)},
               {field.power(512 + 63), field.power(512 - 1)},
               {field.power(128 + 63), field.power(128 - 1)}};
  }
};

// As CrcKind counts them.
constexpr std::array kCrcs{
    Crc(0xEDB88320, 32, "CRC-32"),
    Crc(0x82F63B78, 32, "CRC-32C"),
    Crc(0x9A6C9329AC4BC9B5, 64, "CRC-64/NVME"),
};

const Crc& row(CrcKind kind) { return kCrcs[static_cast<size_t>(kind)]; }

uint64_t by_tables(const Tables& tables, uint64_t state, std::span<const std::byte> data) {
  static_assert(std::endian::native == std::endian::little);
  while (data.size() >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, data.data(), sizeof word);
    word ^= state;
    state = 0;
    for (size_t i = 0; i < 8; ++i) state ^= tables[7 - i][word >> (8 * i) & 0xFF];
    data = data.subspan(8);
  }
  for (const std::byte byte : data) {
    state = state >> 8 ^ tables[0][(state ^ static_cast<uint64_t>(byte)) & 0xFF];
  }
  return state;
}

}  // namespace

const char* crc_name(CrcKind kind) { return row(kind).name; }

size_t crc_size(CrcKind kind) { return static_cast<size_t>(row(kind).field.bits) / 8; }

uint64_t crc_of(CrcKind kind, uint64_t crc, std::span<const std::byte> data, FoldWidth width) {
  const Crc& own = row(kind);
  const uint64_t ones = ~0ULL >> (64 - own.field.bits);
  uint64_t state = crc ^ ones;
  const size_t whole = data.size() / kFoldStep * kFoldStep;
  if (whole > 0 && width != FoldWidth::none) {
    state = by_tables(own.tables, 0, fold_crc(own.folding, state, data.first(whole), width));
    data = data.subspan(whole);
  }
  return by_tables(own.tables, state, data) ^ ones;
}

uint64_t crc_joined(CrcKind kind, uint64_t first, uint64_t second, uint64_t size) {
  const Field& field = row(kind).field;
  uint64_t step = field.one() >> 8;  // x^8: one byte
  for (; size != 0; size >>= 1) {
    if ((size & 1) != 0) first = field.times(first, step);
    step = field.times(step, step);
  }
  return first ^ second;
}

}  // namespace inrush
