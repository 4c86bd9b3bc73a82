// The sink of host memory. A target lies in the arena where its bytes are one run of the file that
// no other target claims: congruent with the file, or moved to a multiple of 64 where its elements
// are not aligned there. Else it has memory of its own, or the caller's. A range is mapped, read in
// place, or read into a slot and copied.
// The budget covers busy slots and ranges granted ahead of the oldest undelivered target. Ranges up
// to that target's last are due: always granted, and not charged, for their bytes are about to be
// the consumer's. A slot is busy only while it is read and copied, so due ranges never starve.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/allocator.h"
#include "inrush/core/plan.h"
#include "inrush/core/sink.h"
#include "inrush/sinks/arena.h"

namespace inrush {

class HostSink final : public Sink {
 public:
  // Throws Error{memory} when the budget is below least_budget(), naming it; Error{usage} when
  // an entry of `out` is too small or misaligned.
  HostSink(const Index& index, const Plan& plan, std::vector<Placement> placements,
           SinkOptions options);
  ~HostSink() override;

  [[nodiscard]] const SinkLayout& layout() const override { return layout_; }
  std::optional<Grant> try_reserve(uint32_t first, uint32_t count, const EngineTraits& traits,
                                   bool hedge) override;
  void landed(const Grant& grant) override;
  bool release(const Grant& grant) override;
  void poll(std::vector<uint32_t>& placed) override;
  [[nodiscard]] SinkStats stats() const override;
  void provide(uint32_t target, Memory memory) override;
  [[nodiscard]] std::byte* address(uint32_t target) const override { return homes_[target].data; }
  Memory take(uint32_t target) override;

  // The least budget that any plan with these limits can be loaded in, in bytes.
  static uint64_t least_budget(const PlanLimits& limits);

 private:
  enum class Kind : uint8_t { arena, moved, own, caller };
  struct Home {
    Kind kind = Kind::own;
    uint64_t start = 0;           // arena and moved: in the blob's part of the arena
    std::byte* data = nullptr;    // nullptr until there is memory
    std::shared_ptr<void> owner;  // own and caller
    bool taken = false;
    [[nodiscard]] bool lies_in_arena() const { return kind == Kind::arena || kind == Kind::moved; }
  };
  struct Slot {
    std::byte* data = nullptr;
    bool busy = false;
  };
  enum class State : uint8_t { waiting, granted, placing, placed };

  void settle_homes(std::map<std::string, Memory>& out);
  void settle_arena_homes(const std::vector<bool>& claimed);
  void settle_placements();
  void place_mappings();
  void settle_needs();
  void advance_due();
  template <typename Is>
  [[nodiscard]] bool any_home(uint32_t range, Is is) const;
  [[nodiscard]] bool in_arena(uint32_t range) const;
  [[nodiscard]] bool fills_arena(uint32_t range) const;
  std::optional<Grant> reserve(uint32_t first, uint32_t count, const EngineTraits& traits,
                               bool hedge);
  [[nodiscard]] bool touches_moved(const std::byte* begin, uint64_t size) const;
  [[nodiscard]] std::byte* direct_address(uint32_t range) const;
  [[nodiscard]] bool may_join(uint32_t range, std::byte* address, uint64_t end) const;
  std::optional<Grant> in_place_grant(uint32_t first, uint32_t count, const EngineTraits& traits);
  std::optional<Grant> slot_grant(uint32_t range, const EngineTraits& traits);
  bool find_homes(uint32_t range);
  [[nodiscard]] bool fits(uint32_t range, uint64_t bytes) const;
  void charge(uint32_t range, uint64_t bytes);
  uint64_t copy_pieces(uint32_t range, const std::byte* source, bool skip_arena) const;
  void free_slot(int32_t slot);

  const Index& index_;
  const Plan& plan_;
  SinkLayout layout_;
  SinkOptions options_;
  std::shared_ptr<Arena> arena_;
  std::vector<Home> homes_;                  // per target
  std::vector<std::span<std::byte>> moved_;  // homes of moved targets, by address
  std::vector<uint32_t> due_after_;  // per target: ranges below it are due when it is the head
  uint64_t slot_size_ = 0;

  mutable std::mutex mutex_;
  std::vector<State> states_;      // per range
  std::vector<bool> in_slot_;      // per range: its first reader got a slot
  std::vector<uint64_t> charged_;  // per range: bytes that count against the budget
  std::vector<Slot> slots_;
  std::vector<uint32_t> newly_placed_;
  uint32_t head_ = 0;  // the oldest target not taken
  uint32_t due_ = 0;   // ranges below it are due
  uint64_t used_ = 0;
  uint64_t peak_ = 0;
  uint64_t copied_ = 0;
};

}  // namespace inrush
