// CRC-32 by carry-less multiplication, where the CPU has it. Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

inline constexpr size_t kFoldStep = 64;  // bytes

// Whether fold_crc32() may be called here.
bool can_fold_crc32();

// 16 bytes whose CRC-32 register, from 0, is what that of `data` is from `state`. `data` is one or
// more whole steps.
std::array<std::byte, 16> fold_crc32(uint32_t state, std::span<const std::byte> data);

}  // namespace inrush
