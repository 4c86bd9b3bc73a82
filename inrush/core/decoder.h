// A Decoder sees every byte of one tensor once: checksum, decrypt. Made per tensor, used by one
// thread at a time, unless its traits allow more. Most tensors have none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "inrush/core/tensor.h"

namespace inrush {

enum class DecodeOrder : uint8_t {
  any_order,  // chunks may come in any order, each whole
  in_order,   // from the first byte to the last
};

struct DecoderTraits {
  uint64_t chunk_size = 1;  // bytes; chunks start at multiples of it from the tensor's start
  DecodeOrder order = DecodeOrder::in_order;
  bool in_place = false;    // it rewrites the bytes it sees
  bool concurrent = false;  // update() may run on several threads at once, for different chunks
  bool in_passing = false;  // concurrent, and costs little while the bytes are in a CPU's caches
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  [[nodiscard]] virtual DecoderTraits traits() const = 0;

  // Bytes [offset, offset + data.size()) of the tensor, whole chunks but for the last.
  virtual void update(uint64_t offset, std::span<std::byte> data) = 0;

  // After the last byte. Throws Error{data} on a mismatch; returns the digest in hex, or "".
  virtual std::string finish() = 0;

  // On another thread, when the load ends early: update() and finish() are to return soon, or to
  // throw. For those that read or wait.
  virtual void stop() {}
};

// Makes the decoder of a tensor, or nullptr if it needs none. Called on lane threads.
using DecoderFactory = std::function<std::unique_ptr<Decoder>(const TensorInfo&)>;

}  // namespace inrush
