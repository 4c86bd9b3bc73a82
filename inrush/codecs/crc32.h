// CRC-32 as zlib, zip and Ethernet have it. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

// Of what `crc` is the CRC-32 of (0: of nothing), followed by these bytes.
uint32_t crc32(uint32_t crc, std::span<const std::byte> data);

}  // namespace inrush
