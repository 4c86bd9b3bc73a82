// A double of a device: memory that no engine can write, filled from pinned slots by copies that
// run beside everything else on a queue of the device's own, each followed by an event. It is a
// Sink as a later one for CUDA will be: the copy outlives landed(), poll() asks the events.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/plan.h"
#include "inrush/core/sink.h"

namespace inrush::test {

// Copies one after the other, in order, on its thread; a stream and its copy engine.
class CopyQueue {
 public:
  struct Event {
    std::atomic<bool> done{false};
  };
  struct Rows {
    std::byte* target;
    const std::byte* source;
    Piece piece;
  };

  CopyQueue() : thread_([this] { work(); }) {}
  ~CopyQueue();

  // Returns at once; the event is done when the rows are copied.
  std::shared_ptr<Event> copy(std::vector<Rows> rows, std::function<void()> copied = {});

 private:
  struct Job {
    std::vector<Rows> rows;
    std::shared_ptr<Event> event;
    std::function<void()> copied;  // called after the event
  };
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stopping_ = false;
  std::thread thread_;
};

class DeviceSink final : public Sink {
 public:
  static constexpr uint64_t kAlignment = 4096;  // of slots, and of offsets at most

  // `slots` pinned slots of the largest range, rounded out; that is the whole budget.
  // With `caller_memory` targets have none until it is provided.
  DeviceSink(const Plan& plan, uint32_t slots, std::function<void()> placed = {},
             bool caller_memory = false);

  // With as many slots as the budget holds, at least two.
  static std::unique_ptr<Sink> make(const Index& index, const Plan& plan,
                                    std::vector<Placement> placements, SinkOptions options);

  [[nodiscard]] const SinkLayout& layout() const override { return layout_; }
  std::optional<Grant> try_reserve(uint32_t first, uint32_t count, const EngineTraits& traits,
                                   bool hedge) override;
  void landed(const Grant& grant) override;
  bool release(const Grant& grant) override;
  void poll(std::vector<uint32_t>& placed) override;
  [[nodiscard]] SinkStats stats() const override;
  void provide(uint32_t target, Memory memory) override;
  [[nodiscard]] std::byte* address(uint32_t) const override { return nullptr; }
  Memory take(uint32_t target) override;

  [[nodiscard]] uint32_t most_slots_busy() const { return most_busy_; }

 private:
  enum class State : uint8_t { waiting, granted, copying, placed };
  struct Slot {
    bool busy = false;
    uint32_t range = 0;
    std::shared_ptr<CopyQueue::Event> copied;  // while a copy reads it
  };

  [[nodiscard]] bool is_due(uint32_t range) const;
  [[nodiscard]] bool has_memory(uint32_t range) const;

  const Plan& plan_;
  std::function<void()> placed_;
  SinkLayout layout_;
  uint64_t slot_size_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::byte> pinned_;
  std::byte* first_slot_ = nullptr;
  std::vector<Slot> slots_;
  std::vector<State> states_;   // per range
  std::vector<Memory> device_;  // per target
  uint32_t head_ = 0;           // the oldest target not taken
  std::vector<bool> taken_;
  uint32_t busy_ = 0;
  uint32_t most_busy_ = 0;
  CopyQueue queue_;  // last: it stops before what it copies goes
};

}  // namespace inrush::test
