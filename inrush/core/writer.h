// A Writer is the way back: a file, an object, a key being created. One thread. Nothing is visible
// under the final name before finish(), and nothing is left after abort() or destruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

struct WriterTraits {
  bool random = true;          // write() at any offset; else strictly appending
  uint64_t smallest_part = 1;  // bytes of all parts but the last
  uint64_t largest_part = 1ULL << 30;
  uint32_t most_parts = 0;      // 0: no limit
  bool first_part_last = true;  // offset 0 may be written after all others (headers)
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
