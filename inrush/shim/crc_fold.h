// CRCs of up to 64 bits by carry-less multiplication, where the CPU has it. Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

inline constexpr size_t kFoldStep = 64;  // bytes

// Powers of x modulo the polynomial, bit-reflected in 64 bits: x^(n+63) and x^(n-1), which move a
// remainder of 128 bits n bits ahead.
struct FoldConstants {
  std::array<uint64_t, 2> ahead_2048;
  std::array<uint64_t, 2> ahead_512;
  std::array<uint64_t, 2> ahead_128;
};

// Vectors that the CPU multiplies at a time.
enum class FoldWidth : uint8_t { none, one, four };

FoldWidth widest_fold();

// 16 bytes whose CRC register, from 0, is what that of `data` is from `state`. `data` is one or
// more whole steps, `width` what the CPU has, and not none.
std::array<std::byte, 16> fold_crc(const FoldConstants& constants, uint64_t state,
                                   std::span<const std::byte> data, FoldWidth width);

}  // namespace inrush
