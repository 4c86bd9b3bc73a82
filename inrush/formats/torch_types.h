// Element types by the names that torch has for them, and what tensors of them are here. Formats
// that torch's users made name them so. Values; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "inrush/core/tensor.h"

namespace inrush {

struct TorchType {
  std::string_view name;       // "float32": without "torch."
  std::optional<Dtype> dtype;  // what it is here; nothing: bytes whose encoding is "torch.NAME"
  uint32_t size;               // bytes of an element, as torch counts elements
};

// The type of this name, or nullptr.
const TorchType* torch_type(std::string_view name);

// Makes shape and strides, which count elements of torch, those of a tensor of this type: sets
// dtype and encoding, and size to the bytes from the first element to the last. Strides that say
// no more than C order does are dropped. False if that many bytes cannot be.
bool set_torch_type(const TorchType& type, TensorInfo& tensor);

// Whether strides repeat what a checkpoint of so many bytes has until it is far more: a bomb.
bool repeats_too_much(const TensorInfo& tensor, uint64_t checkpoint_size);

}  // namespace inrush
