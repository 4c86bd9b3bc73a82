// Element types as safetensors names them. A table: everything about a dtype stands in its row.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace inrush {

enum class Dtype : uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

inline constexpr int kDtypeCount = 22;

// The name in a safetensors header: "BF16".
std::string_view name_of(Dtype dtype);

// Bits of one element: 4, 6, 8, 16, 32 or 64.
uint32_t bits_of(Dtype dtype);

// The dtype with this safetensors name, or nothing.
std::optional<Dtype> dtype_named(std::string_view name);

// Bytes to which an element's address must be a multiple: 1, 2, 4 or 8.
uint32_t alignment_of(Dtype dtype);

}  // namespace inrush
