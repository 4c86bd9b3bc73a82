// Bytes in steps of a page, the next of which is on its way into the processor's caches. Its own
// prefetching ends with every page, and what computes over bytes for as long as memory takes to
// answer (SHA-256, ciphers) would wait there, a third of its time:
// docs/decisions/hashes-fetch-ahead.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>

namespace inrush {

inline constexpr size_t kFetchStep = 4096;  // bytes
inline constexpr size_t kCacheLine = 64;    // bytes

// take(step) for each, in order; so too with bytes that it changes.
template <typename Byte, typename Take>
void fetching_ahead(std::span<Byte> data, Take take) {
  while (!data.empty()) {
    const auto step = data.first(std::min(data.size(), kFetchStep));
    data = data.subspan(step.size());
    const auto next = data.first(std::min(data.size(), kFetchStep));
    for (size_t at = 0; at < next.size(); at += kCacheLine) {
      __builtin_prefetch(next.data() + at, std::is_const_v<Byte> ? 0 : 1, 2);
    }
    take(step);
  }
}

}  // namespace inrush
