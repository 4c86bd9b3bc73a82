// What the harness does to every loader's tensors alike, at C speed: touch each page, and a digest
// that depends on the position of every byte. Loaded with ctypes, which drops the GIL.
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr uint64_t kOdd = 0x9e3779b97f4a7c15ULL;  // 2^64 / golden ratio

uint64_t mix(uint64_t value) {
  value ^= value >> 32;
  value *= 0xd6e8feb86659fd93ULL;
  return value ^ (value >> 32);
}

uint64_t word_at(const unsigned char* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

}  // namespace

extern "C" {

// Reads one byte of every page of `count` ranges; returns their sum so that nothing is left out.
uint64_t bench_touch(const uint64_t* addresses, const uint64_t* sizes, size_t count,
                     uint64_t page) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto* bytes = reinterpret_cast<const volatile unsigned char*>(addresses[i]);
    for (uint64_t offset = 0; offset < sizes[i]; offset += page) sum += bytes[offset];
    if (sizes[i] > 0) sum += bytes[sizes[i] - 1];
  }
  return sum;
}

// Four independent chains, so that it runs at memory speed. Not a cryptographic digest.
uint64_t bench_digest(const unsigned char* bytes, uint64_t size) {
  uint64_t chain[4] = {kOdd, kOdd + 2, kOdd + 4, size};
  uint64_t at = 0;
  for (; at + 32 <= size; at += 32) {
    for (int i = 0; i < 4; ++i) {
      chain[i] = (chain[i] ^ word_at(bytes + at + 8 * i)) * kOdd;
      chain[i] ^= chain[i] >> 29;
    }
  }
  for (; at < size; ++at) chain[0] = (chain[0] ^ bytes[at]) * kOdd;
  return mix(chain[0]) ^ mix(chain[1] + 1) ^ mix(chain[2] + 2) ^ mix(chain[3] + 3);
}
}
