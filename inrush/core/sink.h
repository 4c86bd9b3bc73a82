// A Sink places bytes: into host memory, or a device. It owns staging slots and the budget.
// Lane threads call what is Sink's own, the consumer what is Destination's. Thread-safe. Nothing
// blocks: a range that cannot be granted now is asked for again. Ranges are granted in delivery
// order, and the oldest undelivered one can always be granted, so a load never deadlocks on its
// budget.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "inrush/core/engine.h"
#include "inrush/core/plan.h"
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

// What a sink has settled before the first read; it does not change.
struct SinkLayout {
  std::vector<Region> regions;  // the memory that reads will target
  std::vector<Placement>
      placements;            // per range: as decided, after what memory and alignment allow
  std::vector<bool> mapped;  // per target: the file's own pages, wholly or in part
  std::vector<bool> given;   // per target: it has memory of SinkOptions::out
  // Per target: targets [0, this) must have memory before all of its ranges can be granted.
  std::vector<uint32_t> needed_for;
};

struct SinkStats {
  uint64_t peak_staging = 0;         // bytes under the budget, at most
  uint64_t peak_device_staging = 0;  // bytes of device memory, at most
  uint64_t bytes_copied = 0;         // moved once more on their way to the target
  std::string refusal;               // why register_pages was given up
};

// Where the bytes of targets stay: the consumer's side of a sink.
class Destination {
 public:
  virtual ~Destination() = default;

  // The caller's memory for a target, before any of its ranges can be granted.
  virtual void provide(uint32_t target, Memory memory) = 0;

  // Where the host can read a target's bytes once they are placed: for decoders. Any thread.
  // nullptr: it has no memory yet, or none that the host can read.
  [[nodiscard]] virtual std::byte* address(uint32_t target) const = 0;

  // Hands over a target all of whose ranges are placed; its bytes leave the budget.
  virtual Memory take(uint32_t target) = 0;
};

class Sink : public Destination {
 public:
  [[nodiscard]] virtual const SinkLayout& layout() const = 0;

  // Memory for up to `count` ranges from `first` on; at least one, or nothing for now. With
  // `hedge` (a second read of a range in flight) it is always a slot of its own.
  virtual std::optional<Grant> try_reserve(uint32_t first, uint32_t count,
                                           const EngineTraits& traits, bool hedge) = 0;

  // The grant's bytes have arrived: places them. Where that ends later, SinkOptions::placed is
  // called. A slot whose range another read has already placed is dropped.
  virtual void landed(const Grant& grant) = 0;

  // The grant was not read (failed, cancelled). Only once its reader is quiescent. Whether its
  // ranges are still to be read: not those of a hedge, nor any that another read has placed.
  virtual bool release(const Grant& grant) = 0;

  // Appends ranges whose bytes have reached their targets since the last call, each once.
  virtual void poll(std::vector<uint32_t>& placed) = 0;

  [[nodiscard]] virtual SinkStats stats() const = 0;
};

struct SinkOptions {
  uint64_t budget = 256ULL << 20;     // bytes
  uint64_t device_staging = 0;        // bytes of slots in device memory, for engines that need it
  bool register_pages = false;        // a device may read the files' own pages
  bool collect = false;               // only slots count: nothing waits for the consumer
  bool caller_memory = false;         // an allocator will provide() every target
  std::map<std::string, Memory> out;  // memory of these targets, by tensor name
  // Ranges were placed outside of landed(): poll() has them; and so many slots became free, or
  // UINT32_MAX for any number. From any thread, under no lock.
  std::function<void(uint32_t slots)> placed;
  // The sink cannot go on: its device is lost, say. From any thread, under no lock.
  std::function<void(const Error&)> failed;
};

// Makes the sink of a load. Throws Error{memory} when the budget is below what it needs, naming
// that; Error{usage} when an entry of `out` is too small or misaligned.
using SinkFactory = std::function<std::unique_ptr<Sink>(
    const Index& index, const Plan& plan, std::vector<Placement> placements, SinkOptions options)>;

}  // namespace inrush
