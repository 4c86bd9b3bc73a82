// Digests for bytes that one process writes and reads again: leaves by AES-GMAC under a key that is
// made up here and never leaves, in a tenth of SHA-256's time. Who does not know the key cannot
// find other bytes of the same digest. Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "inrush/codecs/leaf_tree.h"

namespace inrush {

class KeyedTree {
 public:
  // Throws Error{memory} if OpenSSL has no GMAC.
  KeyedTree();

  // For LoadOptions::decoder; it may outlive this.
  [[nodiscard]] DecoderFactory decoder(TreeOptions options = {}) const;

  // The root of bytes that are there already.
  [[nodiscard]] std::string digest(std::span<const std::byte> data) const;

 private:
  LeafHash hash_;
};

}  // namespace inrush
