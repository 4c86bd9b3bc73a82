// An engine from one function that blocks: threads of its own call it, one read each.
// A thread that is stuck in the kernel never holds up the destructor: it is left behind, with the
// source and everything it needs kept alive for it.
#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "inrush/core/engine.h"

namespace inrush {

// What the threads share. Every thread holds the source, so it may outlive its engine.
class BlockingSource {
 public:
  virtual ~BlockingSource() = default;

  // From the lane's thread. most_in_flight is the length of the queue.
  [[nodiscard]] virtual EngineTraits traits() const = 0;
  virtual uint32_t open(const Blob& blob) = 0;
  virtual void attach(const Region&) {}

  // From the lane's thread, before anything is queued. Throws Error{usage} to refuse them.
  virtual void accept(std::span<const Read> reads, size_t in_flight) = 0;

  // From several threads at once: blocks until the read is whole, or says why it is not. Looks at
  // `stop` between two waits and then fails with Error{cancelled}.
  virtual std::optional<Error> read(const Read& read, const std::atomic<bool>& stop) = 0;
};

// On the thread that calls wait(), one read at a time: where reads copy and do not wait, there is
// nobody to hand them to, and that thread's caches hold the bytes afterwards.
std::unique_ptr<Engine> make_on_lane_engine(std::shared_ptr<BlockingSource> source, int wake_fd);

// At most `threads` of them, made as reads come in.
std::unique_ptr<Engine> make_blocking_engine(std::shared_ptr<BlockingSource> source, int wake_fd,
                                             uint32_t threads);

}  // namespace inrush
