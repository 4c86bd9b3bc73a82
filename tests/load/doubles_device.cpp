#include "tests/load/doubles_device.h"

#include <algorithm>
#include <cstring>

#include "inrush/base/align.h"

namespace inrush::test {

CopyQueue::~CopyQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::shared_ptr<CopyQueue::Event> CopyQueue::copy(std::vector<Rows> rows,
                                                  std::function<void()> copied) {
  auto event = std::make_shared<Event>();
  const std::lock_guard lock(mutex_);
  jobs_.push_back({std::move(rows), event, std::move(copied)});
  wake_.notify_one();
  return event;
}

void CopyQueue::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    for (const Rows& rows : job.rows) {
      for (uint64_t row = 0; row < rows.piece.rows; ++row) {
        std::memcpy(rows.target + rows.piece.target_offset + row * rows.piece.target_pitch,
                    rows.source + rows.piece.source_offset + row * rows.piece.source_pitch,
                    rows.piece.row_size);
      }
    }
    job.event->done.store(true, std::memory_order_release);
    if (job.copied) job.copied();
    lock.lock();
  }
}

DeviceSink::DeviceSink(const Plan& plan, uint32_t slots, std::function<void()> placed,
                       bool caller_memory)
    : plan_(plan),
      placed_(std::move(placed)),
      slots_(slots),
      states_(plan.ranges.size(), State::waiting),
      taken_(plan.targets.size()) {
  for (const Range& range : plan.ranges) slot_size_ = std::max(slot_size_, range.size);
  slot_size_ = align_up(slot_size_, kAlignment) + 2 * kAlignment;
  pinned_.resize(slots * slot_size_ + kAlignment);
  first_slot_ =
      pinned_.data() + (kAlignment - reinterpret_cast<uintptr_t>(pinned_.data()) % kAlignment);
  for (const Target& target : plan.targets) {
    if (caller_memory) {
      device_.emplace_back();
      continue;
    }
    const auto bytes = std::make_shared<std::vector<std::byte>>(target.size);
    device_.push_back({bytes->data(), target.size, MemoryKind::device, 0, bytes});
  }
  Region region;
  region.data = first_slot_;
  region.size = slots_.size() * slot_size_;
  region.kind = MemoryKind::pinned;
  layout_.regions = {region};
  layout_.placements.assign(plan.ranges.size(), Placement::copied);
  layout_.mapped.resize(plan.targets.size());
  layout_.given.resize(plan.targets.size());
  for (uint32_t i = 0; i < plan.targets.size(); ++i) {
    uint32_t needed = i + 1;
    for (const Range& range : plan.ranges) {
      if (&range - plan.ranges.data() > static_cast<ptrdiff_t>(plan.targets[i].last_range)) break;
      for (uint32_t p = 0; p < range.piece_count; ++p) {
        needed = std::max(needed, plan.pieces[range.first_piece + p].target + 1);
      }
    }
    layout_.needed_for.push_back(needed);
  }
}

std::unique_ptr<Sink> DeviceSink::make(const Index& /*index*/, const Plan& plan,
                                       std::vector<Placement> /*placements*/, SinkOptions options) {
  uint64_t largest = 1;
  for (const Range& range : plan.ranges) largest = std::max(largest, range.size);
  const auto slots = std::max<uint64_t>(2, options.budget / (largest + 3 * kAlignment));
  return std::make_unique<DeviceSink>(
      plan, static_cast<uint32_t>(slots), [placed = std::move(options.placed)] { placed(1); },
      options.caller_memory);
}

// Whether the consumer waits for this range: those up to the last of the oldest target.
bool DeviceSink::is_due(uint32_t range) const {
  return head_ == plan_.targets.size() || range <= plan_.targets[head_].last_range;
}

bool DeviceSink::has_memory(uint32_t range) const {
  const auto first = plan_.pieces.begin() + plan_.ranges[range].first_piece;
  return std::all_of(first, first + plan_.ranges[range].piece_count,
                     [&](const Piece& piece) { return device_[piece.target].data != nullptr; });
}

std::optional<Grant> DeviceSink::try_reserve(uint32_t first, uint32_t /*count*/,
                                             const EngineTraits& traits, bool hedge) {
  const std::lock_guard lock(mutex_);
  if (states_[first] != (hedge ? State::granted : State::waiting)) return std::nullopt;
  if (!has_memory(first)) return std::nullopt;
  // The last free slot is kept for what is due, so the oldest range is never starved.
  const auto free = static_cast<uint32_t>(slots_.size()) - busy_;
  if (free == 0 || (free == 1 && !is_due(first))) return std::nullopt;
  const auto slot =
      std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.busy; });
  const auto number = slot - slots_.begin();
  slot->busy = true;
  slot->range = first;
  most_busy_ = std::max(most_busy_, ++busy_);
  states_[first] = State::granted;
  const Range& range = plan_.ranges[first];
  Grant grant;
  grant.first = first;
  grant.count = 1;
  grant.offset = align_down(range.offset, traits.offset_align);
  grant.size = align_up(range.offset + range.size, traits.offset_align) - grant.offset;
  grant.required = range.offset + range.size - grant.offset;
  grant.target = first_slot_ + static_cast<uint64_t>(number) * slot_size_;
  grant.slot = static_cast<int32_t>(number);
  grant.hedge = hedge;
  return grant;
}

void DeviceSink::landed(const Grant& grant) {
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[static_cast<size_t>(grant.slot)];
  if (states_[grant.first] != State::granted) {  // another read of it was faster
    slot = {};
    --busy_;
    return;
  }
  states_[grant.first] = State::copying;
  const Range& range = plan_.ranges[grant.first];
  std::vector<CopyQueue::Rows> rows;
  for (uint32_t i = 0; i < range.piece_count; ++i) {
    const Piece& piece = plan_.pieces[range.first_piece + i];
    rows.push_back(
        {device_[piece.target].data, grant.target + (range.offset - grant.offset), piece});
  }
  slot.copied = queue_.copy(std::move(rows), placed_);
}

bool DeviceSink::release(const Grant& grant) {
  const std::lock_guard lock(mutex_);
  slots_[static_cast<size_t>(grant.slot)] = {};
  --busy_;
  if (grant.hedge || states_[grant.first] != State::granted) return false;
  states_[grant.first] = State::waiting;
  return true;
}

void DeviceSink::poll(std::vector<uint32_t>& placed) {
  const std::lock_guard lock(mutex_);
  for (Slot& slot : slots_) {
    if (!slot.copied || !slot.copied->done.load(std::memory_order_acquire)) continue;
    states_[slot.range] = State::placed;
    placed.push_back(slot.range);
    slot = {};
    --busy_;
  }
}

SinkStats DeviceSink::stats() const {
  const std::lock_guard lock(mutex_);
  SinkStats stats;
  stats.peak_staging = most_busy_ * slot_size_;
  return stats;
}

void DeviceSink::provide(uint32_t target, Memory memory) {
  const std::lock_guard lock(mutex_);
  device_[target] = std::move(memory);
}

Memory DeviceSink::take(uint32_t target) {
  const std::lock_guard lock(mutex_);
  Memory memory = std::move(device_[target]);
  taken_[target] = true;
  while (head_ < taken_.size() && taken_[head_]) ++head_;
  return memory;
}

}  // namespace inrush::test
