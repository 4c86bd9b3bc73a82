// Arithmetic on sizes and offsets. Alignments are powers of two.
#pragma once

#include <cstdint>

namespace inrush {

constexpr uint64_t align_down(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return align_down(value + alignment - 1, alignment);
}

constexpr bool is_aligned(uint64_t value, uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}

inline bool is_aligned(const void* address, uint64_t alignment) {
  return is_aligned(reinterpret_cast<uintptr_t>(address), alignment);
}

inline constexpr uint64_t kKiB = 1ULL << 10;
inline constexpr uint64_t kMiB = 1ULL << 20;
inline constexpr uint64_t kGiB = 1ULL << 30;

}  // namespace inrush
