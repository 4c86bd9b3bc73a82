// A Sink places bytes: into host memory, or a device. It owns staging slots and the budget.
// Lane threads call everything but take(), which is the consumer's. Thread-safe. Nothing blocks:
// a range that cannot be granted now is asked for again. Ranges are granted in delivery order,
// and the oldest undelivered one can always be granted, so a load never deadlocks on its budget.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "inrush/core/engine.h"
#include "inrush/core/tensor.h"

namespace inrush {

// Decided by policy for each range before anything is read.
enum class Placement : uint8_t {
  in_place,  // read where it stays, when alignment allows; else as copied
  copied,    // read into a slot, then one copy
  mapped,    // the file's own pages; an engine populates them, or they are resident already
};

// Leave to read ranges [first, first + count) into target. Ranges of one grant are neighbours in
// the blob, so that one read serves them.
struct Grant {
  uint32_t first = 0;
  uint32_t count = 0;
  uint64_t offset = 0;  // what to read: aligned as the engine needs it
  uint64_t size = 0;
  uint64_t required = 0;  // bytes from offset to the last wanted one
  std::byte* target = nullptr;
  int32_t slot = -1;   // -1: in place
  bool hedge = false;  // a second read of its range
};

class Sink {
 public:
  virtual ~Sink() = default;

  // The memory that reads will target.
  [[nodiscard]] virtual std::vector<Region> regions() const = 0;

  // Memory for up to `count` ranges from `first` on; at least one, or nothing for now. With
  // `hedge` (a second read of a range in flight) it is always a slot of its own.
  virtual std::optional<Grant> try_reserve(uint32_t first, uint32_t count,
                                           const EngineTraits& traits, bool hedge) = 0;

  // The grant's bytes have arrived: places them. May finish later: see poll. A slot whose range
  // another read has already placed is dropped.
  virtual void landed(const Grant& grant) = 0;

  // The grant will not be read (failed, cancelled). Only once its reader is quiescent.
  virtual void release(const Grant& grant) = 0;

  // Appends ranges whose bytes have reached their targets since the last call, each once.
  virtual void poll(std::vector<uint32_t>& placed) = 0;

  // Hands over a target all of whose ranges are placed; its bytes leave the budget.
  virtual Memory take(uint32_t target) = 0;
};

}  // namespace inrush
