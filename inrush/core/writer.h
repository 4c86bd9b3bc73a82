// A Writer is the way back: a file, an object, a key being created. Nothing is visible under the
// final name before finish(), and nothing is left after abort() or destruction. One thread, but
// write() may run on traits().width threads at once, and that of a kept file beside its finish().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

// What write() asks for; settled by create().
struct WriterTraits {
  bool random = true;          // write() at any offset; else strictly appending
  uint64_t smallest_part = 1;  // bytes of all parts but the last
  uint64_t largest_part = 1ULL << 30;
  uint32_t most_parts = 0;      // 0: no limit
  bool first_part_last = true;  // offset 0 may be written after all others (headers)
  // What suits it best; anything else works too.
  uint64_t best_part = 4ULL << 20;  // bytes of a part, which begins at a multiple of that
  uint64_t memory_align = 1;        // of the bytes handed over
  unsigned width = 1;               // write() at once on so many threads, where random
};

class Writer {
 public:
  virtual ~Writer() = default;
  [[nodiscard]] virtual WriterTraits traits() const = 0;

  // Says how long the whole will be, before the first write. Throws Error{source} if that is
  // known not to fit.
  virtual void create(uint64_t size) = 0;

  virtual void write(uint64_t offset, std::span<const std::byte> data) = 0;

  // Makes it durable (where asked) and visible under its name, in that order.
  virtual void finish() = 0;

  // Leaves nothing behind. Safe to call at any time; never throws.
  virtual void abort() noexcept = 0;
};

}  // namespace inrush
