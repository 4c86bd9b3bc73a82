// What a format itself keeps to check its tensors by, and to decrypt them: as a decoder for
// LoadOptions::decoder. Any thread.
//
//   options.decoder = inrush::checks_of(checkpoint, {.verify = inrush::Verify::full});
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "inrush/checkpoint.h"
#include "inrush/core/decoder.h"
#include "inrush/core/plan.h"
#include "inrush/manifest.h"

namespace inrush {

enum class Verify : uint8_t {
  none,
  crc,   // by checksums that cost next to nothing; codes of a cipher are always checked
  full,  // by all that there are
};

// A key, or the passphrase that one is derived from. Files say what the derivation costs: more
// than is allowed here is refused.
struct KeyOptions {
  KeyOptions() = default;
  KeyOptions(const KeyOptions&) = default;
  KeyOptions& operator=(const KeyOptions&) = default;
  ~KeyOptions();  // wipes what is secret

  std::optional<std::array<std::byte, 32>> key;
  std::string passphrase;
  uint64_t most_operations = 16;
  uint64_t most_memory = 1ULL << 30;  // bytes
};

struct CheckOptions {
  Verify verify = Verify::none;
  std::optional<KeyOptions> key;
};

// Whether the checkpoint's files have checksums of their own.
bool has_checksums(const Checkpoint& checkpoint);

// Empty if there is nothing to do. Throws Error{usage} for a check that the format has no means
// for, a key that nothing is encrypted with, or a missing key; Error{data} for headers that are
// wrong.
DecoderFactory checks_of(const Checkpoint& checkpoint, const CheckOptions& options);

// Compares the checksums of what no tensor is made of, as storages of PyTorch's archives may be;
// reads it, on the caller's thread. Throws Error{data}; Error{cancelled} soon after `stopped` says
// true.
void check_unused(const Checkpoint& checkpoint, const std::function<bool()>& stopped);

// Both, one after the other, over the same bytes; the digest is the second's. Either may be empty.
DecoderFactory in_turn(DecoderFactory first, DecoderFactory second);

// What a manifest expects of a checkpoint. A value; any thread.
class Expectation {
 public:
  // Throws Error{data} for tensors that should be there and are not.
  Expectation(const Checkpoint& checkpoint, std::shared_ptr<const Manifest> manifest);

  // Holds tensors that are taken whole against what is expected, leaf by leaf where those are
  // known. Throws Error{data}, as making one does, for tensors that are something else, or of which
  // no digest is known.
  [[nodiscard]] DecoderFactory decoder() const;

  // Slices are seen by no decoder: reads the leaves that they lie in, on several threads, and
  // compares those. Throws Error{usage} besides, for tensors whose leaves are not known or lie in
  // their file in another order.
  void check_slices(std::span<const Selection> selections) const;

 private:
  class Expected;
  std::shared_ptr<const Expected> expected_;
};

}  // namespace inrush
