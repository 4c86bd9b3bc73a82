// Hands the bytes of a whole to a Writer in the parts that suit it, on as many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "inrush/core/writer.h"

namespace inrush {

// A run of the whole: bytes in memory, or bytes that `read` fetches when a part wants them.
struct Extent {
  uint64_t size = 0;
  const std::byte* data = nullptr;
  // Fills `target` with the bytes at `offset` of the extent. Called from several threads at once.
  std::function<void(uint64_t offset, std::span<std::byte> target)> read;
};

// Creates, writes and finishes the whole that the extents make, one after the other. What suits the
// writer where it is, is handed over where it is; the rest is put together in memory of one part a
// thread. Throws what the writer or an extent throws, after abort().
void write_parts(Writer& writer, std::span<const Extent> extents);

}  // namespace inrush
