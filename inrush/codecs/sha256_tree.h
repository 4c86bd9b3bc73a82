// Digests of tensors that are computed while the bytes come, in any order: SHA-256 of each leaf of
// 1 MiB, counted from the tensor's first byte, and SHA-256 over the leaves' digests as the root.
// Leaves may be hashed on several threads; the factory and its functions by any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/decoder.h"

namespace inrush {

inline constexpr uint64_t kLeafSize = 1ULL << 20;  // bytes
inline constexpr const char* kTreeName = "sha256-tree-1mib";

struct TreeOptions {
  // The digest that a tensor must have, 64 hex digits; "" for any. A decoder whose tensor has
  // another one throws Error{data} at its end.
  std::function<std::string(const TensorInfo&)> expected;
  // Is given the leaves' digests in hex, in order, when a tensor is complete.
  std::function<void(const TensorInfo&, std::vector<std::string>)> leaves;
};

// For LoadOptions::decoder; Load::digests() then has the roots.
DecoderFactory sha256_tree(TreeOptions options = {});

// The root of bytes that are there already.
std::string tree_digest(std::span<const std::byte> data);

}  // namespace inrush
