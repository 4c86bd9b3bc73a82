#include "inrush/core/tensor.h"

namespace inrush {

uint64_t delivered_size(const TensorInfo& tensor) {
  if (tensor.strides.empty() && tensor.encoding != kZeros) return tensor.size;
  uint64_t count = 1;
  bool overflow = false;
  for (const uint64_t length : tensor.shape) {
    if (length == 0) return 0;
    overflow = overflow || __builtin_mul_overflow(count, length, &count);
  }
  uint64_t bits = 0;
  overflow = overflow || __builtin_mul_overflow(count, uint64_t{bits_of(tensor.dtype)}, &bits);
  return overflow ? ~0ULL : bits / 8;
}

uint32_t alignment_of(const TensorInfo& tensor) {
  constexpr uint32_t kStrictest = 16;        // a pair of float64, in one instruction
  if (tensor.dtype == Dtype::c64) return 8;  // torch's, of which numpy wants 4
  const bool named = tensor.encoding.empty() || tensor.dtype != Dtype::u8;
  return named ? alignment_of(tensor.dtype) : kStrictest;
}

}  // namespace inrush
