// All tensors of a checkpoint: what a Format makes of a Store. A value, immutable once made.
// Tensors stand in file order: by blob (sorted by name), then by offset.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/blob.h"
#include "inrush/core/tensor.h"

namespace inrush {

struct Index {
  std::string format;       // the Format's name: "safetensors"
  std::vector<Blob> blobs;  // sorted by name
  std::vector<TensorInfo> tensors;
  std::vector<uint32_t> by_name;  // indices into tensors, sorted by tensor name
  // __metadata__ of each blob, in blob order; nothing where a blob has none.
  std::vector<std::optional<std::map<std::string, std::string>>> metadata;

  // The tensor of that name, or nullptr. O(log n).
  [[nodiscard]] const TensorInfo* find(std::string_view name) const;

  // Sorts tensors into file order and builds by_name. Throws Error{data} naming both files if a
  // name occurs twice. Formats call it last.
  void finish();
};

}  // namespace inrush
