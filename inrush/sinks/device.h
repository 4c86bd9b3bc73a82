// The sink of device memory: ranges are read into pinned slots and copied from there by streams
// that run beside everything else; a slot is free again once the event behind its copies is done.
// Every target has the caller's memory, on any of the devices or in the host's; where the host can
// touch a device's memory, ranges are read straight into it.
// A target is whole once its copies are done, so what take() gives is ready on every stream.
// The budget is the ring of slots. The last free one is kept for what is due.
// Engines that write into device memory get slots there, and a copy on the device. Those that
// bring in the files' own pages get windows onto these, while the driver registers them.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "inrush/core/sink.h"
#include "inrush/shim/device.h"
#include "inrush/sinks/device_copies.h"
#include "inrush/sinks/device_slots.h"
#include "inrush/sinks/file_windows.h"
#include "inrush/sinks/pinned_ring.h"

namespace inrush {

struct DeviceSinkOptions {
  std::vector<std::shared_ptr<const Device>> devices;  // at least one
  // The stream that the consumer works on, which new memory may still be in use on. Called on the
  // consumer's thread. Empty: the default stream.
  std::function<vendor::Stream(int device)> consumer_stream;
  // How often the allocator has answered: what comes of one answer is fenced once. nullptr: each
  // target is fenced by itself.
  std::shared_ptr<const std::atomic<uint64_t>> answers;
};

class DeviceSink final : public Sink {
 public:
  // Throws Error{memory} when the budget is below two slots, naming that, and what the driver says.
  DeviceSink(const Index& index, const Plan& plan, SinkOptions options, DeviceSinkOptions devices);
  ~DeviceSink() override;

  [[nodiscard]] const SinkLayout& layout() const override { return layout_; }
  std::optional<Grant> try_reserve(uint32_t first, uint32_t count, const EngineTraits& traits,
                                   bool hedge) override;
  void landed(const Grant& grant) override;
  bool release(const Grant& grant) override;
  void poll(std::vector<uint32_t>& placed) override;
  [[nodiscard]] SinkStats stats() const override;
  void provide(uint32_t target, Memory memory) override;
  [[nodiscard]] std::byte* address(uint32_t target) const override { return homes_[target].host; }
  Memory take(uint32_t target) override;

 private:
  enum class State : uint8_t { waiting, granted, placing, placed };
  struct Home {
    Memory memory;              // data is nullptr until there is any
    std::byte* host = nullptr;  // where the host can touch it
    uint32_t copies = 0;        // index into copies_; for memory of a device
    uint64_t fence = 0;         // the host may write it once this one was reached
    bool taken = false;
  };
  struct Slot {
    bool busy = false;
    uint32_t first = 0;  // ranges whose copies read it
    uint32_t count = 0;
    uint32_t batches = 0;  // of copies, under way
  };
  // Slots of one kind.
  struct Shelf {
    uint32_t first = 0;
    uint32_t count = 0;
    uint32_t busy = 0;
    uint64_t block_size = 0;  // most bytes of the ranges in one slot
    uint64_t slot_size = 0;
  };
  using Batches = std::vector<std::vector<DeviceCopy>>;  // per device

  [[nodiscard]] Shelf make_shelf(uint64_t budget, uint64_t most, const char* memory) const;
  void settle_slots();
  void fence(uint32_t device);
  void fence_reached(uint32_t device);
  void advance_due();
  [[nodiscard]] bool has_memory(uint32_t range) const;
  [[nodiscard]] std::byte* direct_address(uint32_t range) const;
  std::optional<Grant> in_place_grant(uint32_t first, const EngineTraits& traits);
  Grant slot_grant(uint32_t first, uint32_t count, const EngineTraits& traits) const;
  [[nodiscard]] bool takes_window(uint32_t first, const EngineTraits& traits, bool hedge) const;
  std::optional<Grant> window_grant(uint32_t first, uint32_t count, const EngineTraits& traits,
                                    std::unique_lock<std::mutex>& lock);
  std::optional<uint32_t> find_slot(Shelf& shelf, uint32_t usable, bool due);
  std::optional<uint32_t> take_slot(bool due, std::unique_lock<std::mutex>& lock);
  void free_slot(int32_t slot);
  [[nodiscard]] bool is_on_device(uint32_t slot) const {
    return slot >= on_device_.first && slot < on_device_.first + on_device_.count;
  }
  [[nodiscard]] bool is_window(uint32_t slot) const {
    return slot >= windows_.first && slot < windows_.first + windows_.count;
  }
  void add_copies(uint32_t range, DeviceCopy from, Batches& batches) const;
  void submit(uint32_t slot, const Batches& batches);
  void batch_done(uint32_t slot);
  void swept();
  void mark_placed(uint32_t first, uint32_t count);
  void give_up(const Error& error);

  const Index& index_;
  const Plan& plan_;
  SinkOptions options_;
  DeviceSinkOptions devices_;
  SinkLayout layout_;
  std::vector<uint32_t> due_after_;
  std::vector<Home> homes_;  // per target
  // Per device: what stands on the consumer's stream, which may use the memory still.
  struct Fence {
    std::optional<uint64_t> answer;  // of the allocator, that it was recorded for
    uint64_t recorded = 0;
    uint64_t reached = 0;  // under the mutex
  };
  std::vector<Fence> fences_;

  mutable std::mutex mutex_;
  std::vector<State> states_;  // per range
  std::vector<Slot> slots_;    // pinned ones, those on the device, windows
  Shelf pinned_;
  Shelf on_device_;
  Shelf windows_;
  uint64_t most_windows_ = 0;  // bytes that were registered at once
  std::string refusal_;        // why no window is opened any more
  std::vector<uint32_t> newly_placed_;
  uint32_t head_ = 0;     // the oldest target not taken
  uint32_t due_ = 0;      // ranges below it are due
  uint32_t copying_ = 0;  // slots
  uint32_t freed_ = 0;    // slots, since lanes were rung for
  uint64_t copied_ = 0;
  bool growing_ = false;
  bool asked_ = false;  // for a grant: there are lanes
  bool failed_ = false;

  std::unique_ptr<PinnedRing> ring_;
  std::unique_ptr<DeviceSlots> device_slots_;  // where engines write to the device by themselves
  std::unique_ptr<FileWindows> file_windows_;
  std::vector<std::unique_ptr<DeviceCopies>> copies_;  // per device; ends before what it reads
};

// A factory for LoadOptions::sink; its loads need an allocator, or memory in `out` for all.
SinkFactory device_sink(DeviceSinkOptions options);

}  // namespace inrush
