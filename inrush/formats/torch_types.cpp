#include "inrush/formats/torch_types.h"

#include <algorithm>
#include <array>
#include <string>

namespace inrush {
namespace {

// No file is longer, and no sum of a few of them overflows.
constexpr uint64_t kLargestStorage = 1ULL << 60;
// A view that repeats its storage (stride 0) may come to more than the files hold, up to here.
constexpr uint64_t kMostRepeated = 64ULL << 20;

constexpr std::array kTorchTypes{
    TorchType{"bool", Dtype::boolean, 1},
    TorchType{"uint8", Dtype::u8, 1},
    TorchType{"int8", Dtype::i8, 1},
    TorchType{"uint16", Dtype::u16, 2},
    TorchType{"int16", Dtype::i16, 2},
    TorchType{"uint32", Dtype::u32, 4},
    TorchType{"int32", Dtype::i32, 4},
    TorchType{"uint64", Dtype::u64, 8},
    TorchType{"int64", Dtype::i64, 8},
    TorchType{"float16", Dtype::f16, 2},
    TorchType{"bfloat16", Dtype::bf16, 2},
    TorchType{"float32", Dtype::f32, 4},
    TorchType{"float64", Dtype::f64, 8},
    TorchType{"complex64", Dtype::c64, 8},
    TorchType{"float8_e4m3fn", Dtype::f8_e4m3, 1},
    TorchType{"float8_e5m2", Dtype::f8_e5m2, 1},
    TorchType{"float8_e8m0fnu", Dtype::f8_e8m0, 1},
    TorchType{"float8_e4m3fnuz", Dtype::f8_e4m3fnuz, 1},
    TorchType{"float8_e5m2fnuz", Dtype::f8_e5m2fnuz, 1},
    TorchType{"float4_e2m1fn_x2", Dtype::f4, 1},
    TorchType{"complex32", std::nullopt, 4},
    TorchType{"complex128", std::nullopt, 16},
    TorchType{"bits8", std::nullopt, 1},
    TorchType{"bits16", std::nullopt, 2},
    TorchType{"bits1x8", std::nullopt, 1},
    TorchType{"bits2x4", std::nullopt, 1},
    TorchType{"bits4x2", std::nullopt, 1},
    TorchType{"uint1", std::nullopt, 1},
    TorchType{"uint2", std::nullopt, 1},
    TorchType{"uint3", std::nullopt, 1},
    TorchType{"uint4", std::nullopt, 1},
    TorchType{"uint5", std::nullopt, 1},
    TorchType{"uint6", std::nullopt, 1},
    TorchType{"uint7", std::nullopt, 1},
    TorchType{"int1", std::nullopt, 1},
    TorchType{"int2", std::nullopt, 1},
    TorchType{"int3", std::nullopt, 1},
    TorchType{"int4", std::nullopt, 1},
    TorchType{"int5", std::nullopt, 1},
    TorchType{"int6", std::nullopt, 1},
    TorchType{"int7", std::nullopt, 1},
};

void drop_plain_strides(TensorInfo& tensor) {
  if (tensor.strides.empty()) return;
  uint64_t stride = 1;
  bool plain = true;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    plain = plain && (tensor.shape[i] == 1 || tensor.strides[i] == stride);
    plain = plain && !__builtin_mul_overflow(stride, tensor.shape[i], &stride);
  }
  const bool empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0U) != tensor.shape.end();
  if (plain || empty) tensor.strides.clear();
}

// Elements from the first to the last.
std::optional<uint64_t> span_of(const TensorInfo& tensor) {
  uint64_t last = 0;
  uint64_t count = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    const uint64_t length = tensor.shape[i];
    if (length == 0) return 0;
    const uint64_t stride = tensor.strides.empty() ? count : tensor.strides[i];
    uint64_t reach = 0;
    if (__builtin_mul_overflow(stride, length - 1, &reach) ||
        __builtin_add_overflow(last, reach, &last) ||
        __builtin_mul_overflow(count, length, &count) || count > kLargestStorage) {
      return std::nullopt;
    }
  }
  return last < kLargestStorage ? std::optional(last + 1) : std::nullopt;
}

// As bytes: one more dimension, of an element's.
void spread_to_bytes(const TorchType& type, TensorInfo& tensor) {
  tensor.dtype = Dtype::u8;
  tensor.encoding = "torch." + std::string(type.name);
  if (type.size == 1) return;
  tensor.alignment = type.size;
  for (uint64_t& stride : tensor.strides) stride *= type.size;
  if (!tensor.strides.empty()) tensor.strides.push_back(1);
  tensor.shape.push_back(type.size);
}

}  // namespace

const TorchType* torch_type(std::string_view name) {
  const auto* const row = std::find_if(kTorchTypes.begin(), kTorchTypes.end(),
                                       [&](const TorchType& type) { return type.name == name; });
  return row == kTorchTypes.end() ? nullptr : row;
}

bool set_torch_type(const TorchType& type, TensorInfo& tensor) {
  if (!tensor.strides.empty() && tensor.strides.size() != tensor.shape.size()) return false;
  drop_plain_strides(tensor);
  const auto span = span_of(tensor);
  if (!span || __builtin_mul_overflow(*span, uint64_t{type.size}, &tensor.size) ||
      tensor.size > kLargestStorage) {
    return false;
  }
  const bool packed = type.dtype == Dtype::f4;  // two to an element of torch
  if (!type.dtype || (packed && (!tensor.strides.empty() || tensor.shape.empty()))) {
    spread_to_bytes(type, tensor);
    return true;
  }
  tensor.dtype = *type.dtype;
  if (packed) tensor.shape.back() *= 2;
  return true;
}

bool repeats_too_much(const TensorInfo& tensor, uint64_t checkpoint_size) {
  return delivered_size(tensor) > std::max(checkpoint_size, kMostRepeated);
}

}  // namespace inrush
