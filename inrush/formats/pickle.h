// Reads the pickles in which torch keeps a checkpoint's structure, without running anything: a
// few opcodes make plain data, and of the objects that a pickle may name only tensors, their
// storages and dictionaries are known. All else is refused by its name. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "inrush/formats/bytes.h"
#include "inrush/formats/torch_types.h"

namespace inrush {

struct PickledStorage {
  std::string key;                  // of the file that holds its bytes
  const TorchType* type = nullptr;  // nothing: bytes
  uint64_t count = 0;               // elements
};

// A view of a storage.
struct PickledTensor {
  std::string name;  // where it stands: keys and indices, with dots between them
  PickledStorage storage;
  const TorchType* type = nullptr;
  uint64_t offset = 0;  // elements of `type` from the storage's first
  std::vector<uint64_t> shape;
  std::vector<uint64_t> strides;
};

// Every tensor of a pickle, in its order. Throws BytesFault.
std::vector<PickledTensor> read_pickle(std::span<const std::byte> pickle);

}  // namespace inrush
