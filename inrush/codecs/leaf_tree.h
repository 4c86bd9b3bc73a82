// Digests of tensors that are computed while the bytes come, in any order: one of each leaf of
// 1 MiB, counted from the tensor's first byte, and SHA-256 over the leaves' digests as the root.
// Leaves may be hashed on several threads; the factories and their functions by any.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/decoder.h"

namespace inrush {

inline constexpr uint64_t kLeafSize = 1ULL << 20;  // bytes

using LeafDigest = std::array<std::byte, 32>;
using LeafHash = std::function<LeafDigest(std::span<const std::byte>)>;

struct TreeOptions {
  // The digest that a tensor must have, 64 hex digits; "" for any. A decoder whose tensor has
  // another one throws Error{data} at its end.
  std::function<std::string(const TensorInfo&)> expected;
  // Those that its leaves must have, or nothing: it throws as soon as one has another. They live
  // as long as the decoder.
  std::function<std::span<const std::string>(const TensorInfo&)> expected_leaves;
  // Is given the leaves' digests in hex, in order, when a tensor is complete; and the root.
  std::function<void(const TensorInfo&, std::vector<std::string>)> leaves;
  std::function<void(const TensorInfo&, const std::string&)> root;
};

// For LoadOptions::decoder; Load::digests() then has the roots.
DecoderFactory leaf_tree(LeafHash hash, TreeOptions options);

// The root of bytes that are there already.
std::string leaf_tree_root(const LeafHash& hash, std::span<const std::byte> data);

std::string hex(const LeafDigest& digest);

LeafDigest sha256_leaf(std::span<const std::byte> data);

}  // namespace inrush
