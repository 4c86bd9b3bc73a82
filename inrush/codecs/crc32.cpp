#include "inrush/codecs/crc32.h"

#include "inrush/shim/crc.h"

namespace inrush {

uint32_t crc32(uint32_t crc, std::span<const std::byte> data) {
  return static_cast<uint32_t>(crc_of(CrcKind::crc32, crc, data));
}

}  // namespace inrush
