// Bytes as libsodium has them.
#pragma once

#include <cstddef>

namespace inrush {

inline unsigned char* sodium_bytes(std::byte* bytes) {
  return reinterpret_cast<unsigned char*>(bytes);
}
inline const unsigned char* sodium_bytes(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

}  // namespace inrush
