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

constexpr size_t kWideStep = 256;  // bytes: four vectors of 512 bits

// The remainder so far, as kFoldStep bytes. NOLINTNEXTLINE: std::array would lose the alignment
using Lanes = __m128i[4];

__attribute__((target("sse4.1"))) void begin(uint64_t state, std::span<const std::byte>& data,
                                             Lanes& lanes) {
  const auto* at = reinterpret_cast<const __m128i*>(data.data());
  for (__m128i& lane : lanes) lane = _mm_loadu_si128(at++);
  lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi64_si128(static_cast<int64_t>(state)));
  data = data.subspan(kFoldStep);
}

__attribute__((target("vpclmulqdq,avx512f"))) __m512i fold(__m512i value, __m512i by,
                                                           __m512i next) {
  constexpr int kXorOfThree = 0x96;
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(value, by, 0x00),
                                   _mm512_clmulepi64_epi128(value, by, 0x11), next, kXorOfThree);
}

// With a mask of all: GCC 12 warns of what it fills the plain instruction's result with.
__attribute__((target("avx512f"))) __m512i broadcast(const std::array<uint64_t, 2>& halves) {
  constexpr __mmask16 kAll = 0xFFFF;
  return _mm512_maskz_broadcast_i32x4(kAll, vector_of(halves));
}

// Takes whole wide steps off the front of `data`.
__attribute__((target("vpclmulqdq,avx512f"))) void fold_by_four(const FoldConstants& constants,
                                                                uint64_t state,
                                                                std::span<const std::byte>& data,
                                                                Lanes& lanes) {
  const __m512i ahead_2048 = broadcast(constants.ahead_2048);
  const __m512i ahead_512 = broadcast(constants.ahead_512);
  const auto* at = data.data();
  const auto* const end = at + data.size() / kWideStep * kWideStep;
  __m512i wide[4];  // NOLINT: as Lanes
  for (__m512i& each : wide) {
    each = _mm512_loadu_si512(at);
    at += sizeof each;
  }
  wide[0] = _mm512_xor_si512(
      wide[0], _mm512_zextsi128_si512(_mm_cvtsi64_si128(static_cast<int64_t>(state))));
  while (at != end) {
    for (size_t line = 0; line < kWideStep; line += 64) {
      __builtin_prefetch(at + kFetchStep + line, 0, 2);
    }
    for (__m512i& each : wide) {
      each = fold(each, ahead_2048, _mm512_loadu_si512(at));
      at += sizeof each;
    }
  }
  __m512i one = wide[0];
  for (size_t i = 1; i < 4; ++i) one = fold(one, ahead_512, wide[i]);
  _mm512_storeu_si512(lanes, one);
  data = data.subspan(static_cast<size_t>(end - data.data()));
}

__attribute__((target("pclmul,sse4.1"))) std::array<std::byte, 16> fold_by_one(
    const FoldConstants& constants, std::span<const std::byte> data, Lanes& lanes) {
  const __m128i ahead_512 = vector_of(constants.ahead_512);
  const __m128i ahead_128 = vector_of(constants.ahead_128);
  const auto* at = reinterpret_cast<const __m128i*>(data.data());
  const auto* const end = at + data.size() / sizeof(__m128i);
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

}  // namespace

FoldWidth widest_fold() {
  static const FoldWidth widest = [] {
    const auto has = [](int supported) { return supported != 0; };
    if (!has(__builtin_cpu_supports("pclmul")) || !has(__builtin_cpu_supports("sse4.1")))
      return FoldWidth::none;
    return has(__builtin_cpu_supports("vpclmulqdq")) && has(__builtin_cpu_supports("avx512f"))
               ? FoldWidth::four
               : FoldWidth::one;
  }();
  return widest;
}

std::array<std::byte, 16> fold_crc(const FoldConstants& constants, uint64_t state,
                                   std::span<const std::byte> data, FoldWidth width) {
  Lanes lanes;
  if (width == FoldWidth::four && data.size() >= kWideStep) {
    fold_by_four(constants, state, data, lanes);
  } else {
    begin(state, data, lanes);
  }
  return fold_by_one(constants, data, lanes);
}

#else

FoldWidth widest_fold() { return FoldWidth::none; }

std::array<std::byte, 16> fold_crc(const FoldConstants&, uint64_t, std::span<const std::byte>,
                                   FoldWidth) {
  std::abort();
}

#endif

}  // namespace inrush
