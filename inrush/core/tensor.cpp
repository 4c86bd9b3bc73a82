#include "inrush/core/tensor.h"

#include <algorithm>

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
  constexpr uint32_t kComplex = 8;  // of torch's; numpy's do with 4
  const uint32_t least = tensor.dtype == Dtype::c64 ? kComplex : alignment_of(tensor.dtype);
  return std::max(tensor.alignment, least);
}

}  // namespace inrush
