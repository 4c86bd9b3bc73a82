#include "inrush/core/dtype.h"

#include <array>

namespace inrush {
namespace {

struct Row {
  std::string_view name;
  uint32_t bits;
};

// In the order of the enum, which is the order in which safetensors sorts tensors by alignment.
constexpr std::array<Row, kDtypeCount> kRows{{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};

const Row& row_of(Dtype dtype) { return kRows[static_cast<size_t>(dtype)]; }

}  // namespace

std::string_view name_of(Dtype dtype) { return row_of(dtype).name; }

uint32_t bits_of(Dtype dtype) { return row_of(dtype).bits; }

std::optional<Dtype> dtype_named(std::string_view name) {
  for (int i = 0; i < kDtypeCount; ++i) {
    if (kRows[static_cast<size_t>(i)].name == name) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

uint32_t alignment_of(Dtype dtype) {
  if (dtype == Dtype::c64) return 4;  // two float32
  const uint32_t bits = bits_of(dtype);
  return bits < 8 ? 1 : bits / 8;
}

}  // namespace inrush
