// An Engine is how bytes come: a queue of reads. One thread (its lane's) calls everything but
// cancel. Completions, and whoever wants the lane, ring the eventfd that the engine was made with.
// A read completes wholly or with an Error: short reads, EINTR and EAGAIN are resumed inside.
// After cancel() every submitted read still completes exactly once, or, if the kernel holds it
// past the lane's deadline, the engine and the memory go to the orphan list.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "inrush/core/blob.h"
#include "inrush/core/error.h"
#include "inrush/core/region.h"

namespace inrush {

class Leases;

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

inline double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

struct Read {
  uint64_t tag = 0;             // handed back in the Completion
  uint32_t file = 0;            // what Engine::open returned
  uint64_t offset = 0;          // a multiple of traits.offset_align
  uint64_t size = 0;            // likewise, or up to the blob's end
  uint64_t required = 0;        // fewer bytes than this at the blob's end is an error
  std::byte* target = nullptr;  // a multiple of traits.memory_align, room for size bytes
};

struct Completion {
  uint64_t tag = 0;
  std::optional<Error> error;
  uint32_t retries = 0;  // requests that the engine repeated for it
  uint32_t hedges = 0;   // second requests that it sent beside a silent one
};

struct EngineTraits {
  const char* name = "";
  uint32_t memory_kinds = 1U << static_cast<uint32_t>(MemoryKind::host);  // bit per MemoryKind
  uint32_t memory_align = 1;
  uint32_t offset_align = 1;
  uint64_t largest_read = 1ULL << 30;
  uint32_t most_in_flight = 1024;  // submit() refuses more
  bool ordered = false;            // completions come in submission order
  bool populates = false;  // reads into mappings of the blob bring pages in, and write nothing
};

struct EngineOptions {
  bool direct = false;               // bypass the page cache
  uint32_t depth = 32;               // most reads in flight; threads of a blocking engine
  int wake_fd = -1;                  // eventfd of the lane, borrowed
  uint64_t block_size = 1ULL << 20;  // the read size the lane intends
  bool keep_pages = false;           // what it writes here stays in the page cache
  bool on_lane = false;              // wait() reads, where the engine can: for reads that only copy
  uint32_t source = 0;  // 0: the checkpoint's own place; else its mirror of that number
  // Descriptors of the store's that a stream may begin on, where it costs a round trip to open one.
  std::shared_ptr<Leases> lent{};
  // Whether files are mapped by huge pages; empty: where those pay on this machine.
  std::optional<bool> huge_pages{};
};

class Engine {
 public:
  virtual ~Engine() = default;

  [[nodiscard]] virtual EngineTraits traits() const = 0;

  // Prepares a blob and returns its number in Read::file. Throws Error if this engine cannot
  // serve it (say: the filesystem has no direct I/O); the text is the rejection reason.
  virtual uint32_t open(const Blob& blob) = 0;

  // Announces memory that reads will target, before the first open(). Optional to use.
  virtual void attach(const Region& region) = 0;

  // Queues reads: all of them, or throws Error{usage} when over traits.most_in_flight.
  virtual void submit(std::span<const Read> reads) = 0;

  // Fills `done` and returns how many; waits until at least one is there, the eventfd rang, or
  // the deadline passed (then 0).
  virtual size_t wait(std::span<Completion> done, Deadline deadline) = 0;

  // From any thread: stops what is in flight as soon as can be.
  virtual void cancel() = 0;
};

}  // namespace inrush
