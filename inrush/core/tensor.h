// TensorInfo names a tensor's bytes in a blob; Memory owns bytes; Tensor is the two together.
// Values. Memory::owner keeps the bytes alive: a slot is reused only when nobody can see it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/dtype.h"
#include "inrush/core/region.h"

namespace inrush {

// Encodings that the pipeline itself knows. Tensors of any other are delivered as they lie.
inline constexpr std::string_view kZeros = "zeros";          // no bytes in the blob: all are 0
inline constexpr std::string_view kSecretbox = "secretbox";  // only through a Decoder

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::u8;
  std::vector<uint64_t> shape;    // counts of elements; C order
  std::vector<uint64_t> strides;  // in elements; empty means contiguous
  uint32_t blob = 0;              // index into Index::blobs
  uint64_t offset = 0;            // of the first byte in the blob
  uint64_t size = 0;              // bytes in the blob, from the first to the last of the tensor's
  std::string encoding;           // empty: raw bytes
  uint32_t alignment = 1;         // that the elements need where they are not of the dtype
};

// Bytes of the whole tensor as it is delivered, in C order. `size`, but for strides and zeros.
// Saturates where shape and dtype need more than 64 bits count.
uint64_t delivered_size(const TensorInfo& tensor);

// Bytes to which the address of what is delivered is a multiple.
uint32_t alignment_of(const TensorInfo& tensor);

struct Memory {
  std::byte* data = nullptr;
  uint64_t size = 0;
  MemoryKind kind = MemoryKind::host;
  int device = -1;
  std::shared_ptr<void> owner;
  DeviceVendor vendor = DeviceVendor::cuda;  // of a device's memory
};

struct Tensor {
  std::string name;
  Dtype dtype = Dtype::u8;
  std::vector<uint64_t> shape;  // of what is delivered: the slice's where one was asked for
  Memory memory;
  uint32_t consumer = 0;
  bool mapped = false;  // the bytes are the file's own pages
};

}  // namespace inrush
