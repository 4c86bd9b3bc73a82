// The digests that manifests have: SHA-256 of leaves, and over them.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "inrush/codecs/leaf_tree.h"

namespace inrush {

inline constexpr const char* kTreeName = "sha256-tree-1mib";

inline DecoderFactory sha256_tree(TreeOptions options = {}) {
  return leaf_tree(sha256_leaf, std::move(options));
}

// The root of bytes that are there already.
inline std::string tree_digest(std::span<const std::byte> data) {
  return leaf_tree_root(sha256_leaf, data);
}

}  // namespace inrush
