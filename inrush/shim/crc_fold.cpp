// The folding that Intel's "Fast CRC Computation Using PCLMULQDQ" describes: a remainder of 128
// bits is moved n bits ahead by multiplying its halves with powers of x modulo the polynomial. All
// is bit-reflected, so that a product comes out multiplied by x once more: the powers are one less.
#include "inrush/shim/crc_fold.h"

#include <cstdlib>

#include "inrush/base/fetch_ahead.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace inrush {

#if defined(__x86_64__)

namespace {

__attribute__((target("pclmul,sse4.1"))) __m128i fold(__m128i value, __m128i by, __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(value, by, 0x00);
  const __m128i high = _mm_clmulepi64_si128(value, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

__m128i vector_of(const std::array<uint64_t, 2>& halves) {
  return _mm_set_epi64x(static_cast<int64_t>(halves[1]), static_cast<int64_t>(halves[0]));
}

}  // namespace

bool can_fold_crc() {
  static const bool can =
      __builtin_cpu_supports("pclmul") != 0 && __builtin_cpu_supports("sse4.1") != 0;
  return can;
}

__attribute__((target("pclmul,sse4.1"))) std::array<std::byte, 16> fold_crc(
    const FoldConstants& constants, uint64_t state, std::span<const std::byte> data) {
  const __m128i ahead_512 = vector_of(constants.ahead_512);
  const __m128i ahead_128 = vector_of(constants.ahead_128);
  const auto* at = reinterpret_cast<const __m128i*>(data.data());
  const auto* const end = at + data.size() / sizeof(__m128i);
  __m128i lanes[4];  // NOLINT: std::array would lose the vectors' alignment attribute
  for (__m128i& lane : lanes) lane = _mm_loadu_si128(at++);
  lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi64_si128(static_cast<int64_t>(state)));
  while (at != end) {
    // A page ahead: the processor's own prefetching ends with each (base/fetch_ahead.h).
    __builtin_prefetch(at + kFetchStep / sizeof(__m128i), 0, 2);
    for (__m128i& lane : lanes) lane = fold(lane, ahead_512, _mm_loadu_si128(at++));
  }
  __m128i one = lanes[0];
  for (size_t i = 1; i < 4; ++i) one = fold(one, ahead_128, lanes[i]);
  std::array<std::byte, 16> rest;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest.data()), one);
  return rest;
}

#else

bool can_fold_crc() { return false; }

std::array<std::byte, 16> fold_crc(const FoldConstants&, uint64_t, std::span<const std::byte>) {
  std::abort();
}

#endif

}  // namespace inrush
