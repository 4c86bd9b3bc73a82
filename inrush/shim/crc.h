// The CRCs that checkpoints and object stores are checked by, over bytes that may come in any
// order: of two parts, crc_joined() gives that of both. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "inrush/shim/crc_fold.h"

namespace inrush {

enum class CrcKind : uint8_t { crc32, crc32c, crc64nvme };

// "CRC-64/NVME".
const char* crc_name(CrcKind kind);

// Bytes of the value: 4 or 8.
size_t crc_size(CrcKind kind);

// Of what `crc` is the CRC of (0: of nothing), followed by these bytes.
uint64_t crc_of(CrcKind kind, uint64_t crc, std::span<const std::byte> data,
                FoldWidth width = widest_fold());

// Of what has the CRC `first`, followed by `size` bytes that have the CRC `second`.
uint64_t crc_joined(CrcKind kind, uint64_t first, uint64_t second, uint64_t size);

}  // namespace inrush
