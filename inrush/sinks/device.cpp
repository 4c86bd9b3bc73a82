#include "inrush/sinks/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/sinks/due.h"
#include "inrush/sinks/rows.h"

namespace inrush {
namespace {

// What a lane around the page cache reads at a time. Slots of twice that hold 64 reads in twice the
// pinned memory, all of which the kernel has to find and clear first.
constexpr uint64_t kPinnedBlock = 1 * kMiB;
// What cuFile reads at a time: below it its own costs show.
constexpr uint64_t kDeviceBlock = 4 * kMiB;
constexpr uint32_t kDeviceMemory = 1U << static_cast<uint32_t>(MemoryKind::device);
constexpr uint32_t kStreams = 4;
// Where so many slots are being copied from, the device is what is waited for: one comes free soon,
// and more of them would be found, cleared and pinned for nothing. 16 MiB are 0.3 ms of PCIe 5.
constexpr uint32_t kEnoughCopying = 4 * kStreams;
constexpr auto kPatienceAtEnd = std::chrono::seconds(2);

// What a device that does not answer may still read or write. It is never freed.
struct Held {
  std::unique_ptr<PinnedRing> ring;
  std::unique_ptr<DeviceSlots> slots;
  std::vector<std::shared_ptr<void>> owners;
};

}  // namespace

DeviceSink::DeviceSink(const Index& index, const Plan& plan, SinkOptions options,
                       DeviceSinkOptions devices)
    : index_(index),
      plan_(plan),
      options_(std::move(options)),
      devices_(std::move(devices)),
      homes_(plan.targets.size()),
      states_(plan.ranges.size(), State::waiting) {
  layout_.placements.assign(plan.ranges.size(), Placement::copied);
  layout_.mapped.resize(plan.targets.size());
  layout_.given.resize(plan.targets.size());
  DueRanges ranges = due_ranges(plan);
  due_after_ = std::move(ranges.due_after);
  layout_.needed_for = std::move(ranges.needed_for);
  settle_slots();
  for (const auto& device : devices_.devices) {
    copies_.push_back(std::make_unique<DeviceCopies>(
        device, kStreams,
        DeviceCopies::Callbacks{[this](uint64_t slot) { batch_done(static_cast<uint32_t>(slot)); },
                                [this](const Error& error) { give_up(error); }}));
  }
  std::map<std::string, Memory> out = std::move(options_.out);
  for (uint32_t i = 0; i < homes_.size(); ++i) {
    const auto given = out.find(index_.tensors[plan_.targets[i].tensor].name);
    if (given == out.end()) continue;
    layout_.given[i] = true;
    provide(i, given->second);
  }
  advance_due();
}

DeviceSink::~DeviceSink() {
  bool quiet = true;
  for (const auto& copies : copies_) quiet &= copies->finish(Clock::now() + kPatienceAtEnd);
  if (quiet) return;
  auto* held = new Held{std::move(ring_), std::move(device_slots_), {}};
  for (Home& home : homes_) held->owners.push_back(std::move(home.memory.owner));
}

// Blocks of `most` bytes where the budget has room for 16.
DeviceSink::Shelf DeviceSink::make_shelf(uint64_t budget, uint64_t most, const char* memory) const {
  uint64_t largest = 1;
  for (const Range& range : plan_.ranges) largest = std::max(largest, range.size);
  Shelf shelf;
  shelf.block_size = std::clamp(align_down(budget / 16, kMiB), largest, std::max(largest, most));
  shelf.slot_size = align_up(shelf.block_size, kSlotMargin) + 2 * kSlotMargin;
  if (budget < 2 * shelf.slot_size) {
    throw Error(ErrorCode::memory,
                fmt::format("budget of {} bytes of {} memory is below the least that this load "
                            "can work in, {} bytes",
                            budget, memory, 2 * shelf.slot_size));
  }
  // No more than all there is to read.
  const uint64_t useful = std::max<uint64_t>(plan_.bytes_read / shelf.block_size + 2, 2);
  shelf.count = static_cast<uint32_t>(
      std::min({budget / shelf.slot_size, useful, static_cast<uint64_t>(plan_.ranges.size()) + 2}));
  return shelf;
}

void DeviceSink::settle_slots() {
  const auto& device = devices_.devices.front();
  pinned_ = make_shelf(options_.budget, kPinnedBlock, "pinned");
  ring_ = std::make_unique<PinnedRing>(device, pinned_.slot_size, pinned_.count);
  layout_.regions = {ring_->region()};
  if (options_.device_staging > 0) {
    on_device_ = make_shelf(options_.device_staging, kDeviceBlock, "device");
    on_device_.first = pinned_.count;
    device_slots_ = std::make_unique<DeviceSlots>(device, on_device_.slot_size, on_device_.count);
    layout_.regions.push_back(device_slots_->region());
    layout_.regions.back().id = 1;
  }
  slots_.resize(pinned_.count + on_device_.count);
}

void DeviceSink::advance_due() {
  while (head_ < homes_.size() && homes_[head_].taken) ++head_;
  const auto all = static_cast<uint32_t>(plan_.ranges.size());
  due_ = options_.collect || head_ == homes_.size() ? all : due_after_[head_];
}

bool DeviceSink::has_memory(uint32_t range) const {
  const auto first = plan_.pieces.begin() + plan_.ranges[range].first_piece;
  return std::all_of(first, first + plan_.ranges[range].piece_count, [&](const Piece& piece) {
    return homes_[piece.target].memory.data != nullptr;
  });
}

// Where the whole range may be read to, if the host can touch it.
std::byte* DeviceSink::direct_address(uint32_t index) const {
  const Range& range = plan_.ranges[index];
  const Piece& piece = plan_.pieces[range.first_piece];
  const Home& home = homes_[piece.target];
  const bool plain = range.piece_count == 1 && piece.rows == 1 && piece.row_size == range.size;
  return plain && home.host != nullptr ? home.host + piece.target_offset : nullptr;
}

std::optional<Grant> DeviceSink::try_reserve(uint32_t first, uint32_t count,
                                             const EngineTraits& traits, bool hedge) {
  std::unique_lock lock(mutex_);
  // A second reader may land beside the first one, in a slot; in place there is one writer.
  if (states_[first] != (hedge ? State::granted : State::waiting)) return std::nullopt;
  if (failed_ || !has_memory(first) || (hedge && direct_address(first))) return std::nullopt;
  if (!hedge && direct_address(first) != nullptr) {
    if (auto grant = in_place_grant(first, traits)) return grant;
  }
  const bool on_device = traits.memory_kinds == kDeviceMemory;
  const std::optional<uint32_t> slot = on_device
                                           ? find_slot(on_device_, on_device_.count, first < due_)
                                           : take_slot(first < due_, lock);
  if (!slot) return std::nullopt;
  // The lock was open while the ring grew.
  if (states_[first] != (hedge ? State::granted : State::waiting)) {
    free_slot(static_cast<int32_t>(*slot));
    return std::nullopt;
  }
  Grant grant = slot_grant(first, hedge ? 1 : count, traits);
  grant.target = on_device ? device_slots_->slot(*slot - on_device_.first) : ring_->slot(*slot);
  grant.slot = static_cast<int32_t>(*slot);
  grant.hedge = hedge;
  for (uint32_t i = 0; i < grant.count; ++i) states_[first + i] = State::granted;
  return grant;
}

std::optional<Grant> DeviceSink::in_place_grant(uint32_t first, const EngineTraits& traits) {
  const Range& range = plan_.ranges[first];
  Grant grant;
  grant.first = first;
  grant.count = 1;
  grant.offset = range.offset;
  grant.size = grant.required = range.size;
  grant.target = direct_address(first);
  const bool aligned = is_aligned(range.offset, traits.offset_align) &&
                       is_aligned(range.size, traits.offset_align) &&
                       is_aligned(grant.target, traits.memory_align);
  if (!aligned) return std::nullopt;
  states_[first] = State::granted;
  return grant;
}

Grant DeviceSink::slot_grant(uint32_t first, uint32_t count, const EngineTraits& traits) const {
  assert(traits.offset_align <= kSlotMargin);
  const Range& range = plan_.ranges[first];
  uint64_t end = range.offset + range.size;
  const Shelf& shelf = traits.memory_kinds == kDeviceMemory ? on_device_ : pinned_;
  const uint64_t most = std::min(shelf.block_size, traits.largest_read - 2 * traits.offset_align);
  uint32_t next = first + 1;
  for (; next < first + count && next < states_.size(); ++next) {
    const Range& follower = plan_.ranges[next];
    const bool joins = states_[next] == State::waiting && follower.blob == range.blob &&
                       follower.offset == end && end + follower.size - range.offset <= most &&
                       has_memory(next) && direct_address(next) == nullptr;
    if (!joins) break;
    end += follower.size;
  }
  Grant grant;
  grant.first = first;
  grant.count = next - first;
  grant.offset = align_down(range.offset, traits.offset_align);
  grant.size = align_up(end, traits.offset_align) - grant.offset;
  grant.required = end - grant.offset;
  return grant;
}

std::optional<uint32_t> DeviceSink::find_slot(Shelf& shelf, uint32_t usable, bool due) {
  if (!due && shelf.busy + 1 == shelf.count) return std::nullopt;
  const auto begin = slots_.begin() + shelf.first;
  const auto slot = std::find_if(begin, begin + usable, [](const Slot& s) { return !s.busy; });
  if (slot == begin + usable) return std::nullopt;
  *slot = {};
  slot->busy = true;
  ++shelf.busy;
  return static_cast<uint32_t>(slot - slots_.begin());
}

std::optional<uint32_t> DeviceSink::take_slot(bool due, std::unique_lock<std::mutex>& lock) {
  while (!failed_) {
    const uint32_t usable = ring_->pinned();
    if (const auto slot = find_slot(pinned_, usable, due)) return slot;
    const bool may_grow = usable < pinned_.count && copying_ < kEnoughCopying;
    if (pinned_.busy < usable || !may_grow || growing_) return std::nullopt;
    growing_ = true;
    lock.unlock();
    try {
      ring_->grow();
    } catch (const Error& error) {
      give_up(error);
    }
    lock.lock();
    growing_ = false;
    lock.unlock();
    if (options_.placed) options_.placed();  // who found no slot looks again
    lock.lock();
  }
  return std::nullopt;
}

void DeviceSink::free_slot(int32_t slot) {
  if (slot < 0) return;
  slots_[static_cast<size_t>(slot)] = {};
  --(is_on_device(static_cast<uint32_t>(slot)) ? on_device_ : pinned_).busy;
}

void DeviceSink::landed(const Grant& grant) {
  {
    const std::lock_guard lock(mutex_);
    if (states_[grant.first] != State::granted) {  // another read of it was faster
      free_slot(grant.slot);
      return;
    }
    for (uint32_t i = 0; i < grant.count; ++i) states_[grant.first + i] = State::placing;
    if (grant.slot < 0) {
      mark_placed(grant.first, grant.count);
      return;
    }
    Slot& slot = slots_[static_cast<size_t>(grant.slot)];
    slot.first = grant.first;
    slot.count = grant.count;
  }
  Batches batches(copies_.size());
  for (uint32_t i = grant.first; i < grant.first + grant.count; ++i) {
    DeviceCopy from;
    from.source = grant.target + (plan_.ranges[i].offset - grant.offset);
    from.from_device = is_on_device(static_cast<uint32_t>(grant.slot));
    add_copies(i, from, batches);
  }
  submit(static_cast<uint32_t>(grant.slot), batches);
}

// Host memory is filled at once. Pieces that lie side by side on both ends become one copy: many
// small tensors in one block of memory.
void DeviceSink::add_copies(uint32_t range, DeviceCopy from, Batches& batches) const {
  const Range& whole = plan_.ranges[range];
  for (uint32_t p = 0; p < whole.piece_count; ++p) {
    const Piece& piece = plan_.pieces[whole.first_piece + p];
    const Home& home = homes_[piece.target];
    if (home.host != nullptr) {
      assert(!from.from_device);
      copy_rows(piece, home.host, from.source);
      continue;
    }
    DeviceCopy copy = from;
    copy.target = reinterpret_cast<vendor::Address>(home.memory.data) + piece.target_offset;
    copy.source += piece.source_offset;
    copy.row_size = piece.row_size;
    copy.rows = piece.rows;
    copy.source_pitch = piece.source_pitch;
    copy.target_pitch = piece.target_pitch;
    copy.block = home.memory.owner.get();
    std::vector<DeviceCopy>& batch = batches[home.copies];
    DeviceCopy* const last = batch.empty() ? nullptr : &batch.back();
    const bool follows = last != nullptr && last->rows == 1 && copy.rows == 1 &&
                         copy.block != nullptr && last->block == copy.block &&
                         last->target + last->row_size == copy.target &&
                         last->source + last->row_size == copy.source;
    if (follows) {
      last->row_size += copy.row_size;
    } else {
      batch.push_back(copy);
    }
  }
}

void DeviceSink::submit(uint32_t slot, const Batches& batches) {
  const auto used = std::count_if(batches.begin(), batches.end(),
                                  [](const auto& batch) { return !batch.empty(); });
  uint64_t bytes = 0;
  for (const auto& batch : batches) {
    for (const DeviceCopy& copy : batch) bytes += copy.rows * copy.row_size;
  }
  {
    const std::lock_guard lock(mutex_);
    copied_ += bytes;
    slots_[slot].batches = static_cast<uint32_t>(used);
    if (used == 0) {
      mark_placed(slots_[slot].first, slots_[slot].count);
      free_slot(static_cast<int32_t>(slot));
      return;
    }
    ++copying_;
    if (failed_) return;  // the slot stays as it is: part of it may be under way
  }
  try {
    for (size_t i = 0; i < batches.size(); ++i) {
      if (!batches[i].empty()) copies_[i]->submit(batches[i], slot);
    }
  } catch (const Error& error) {
    give_up(error);
  }
}

void DeviceSink::batch_done(uint32_t index) {
  {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[index];
    if (--slot.batches > 0) return;
    --copying_;
    mark_placed(slot.first, slot.count);
    free_slot(static_cast<int32_t>(index));
  }
  if (options_.placed) options_.placed();
}

void DeviceSink::mark_placed(uint32_t first, uint32_t count) {
  for (uint32_t i = first; i < first + count; ++i) {
    states_[i] = State::placed;
    newly_placed_.push_back(i);
  }
}

void DeviceSink::give_up(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(failed_, true)) return;
  }
  if (options_.failed) options_.failed(error);
}

bool DeviceSink::release(const Grant& grant) {
  const std::lock_guard lock(mutex_);
  free_slot(grant.slot);
  // Ranges of one grant are in one state: only a single one can have been placed by a hedge.
  if (grant.hedge || states_[grant.first] != State::granted) return false;
  for (uint32_t i = grant.first; i < grant.first + grant.count; ++i) {
    states_[i] = State::waiting;
  }
  return true;
}

void DeviceSink::poll(std::vector<uint32_t>& placed) {
  const std::lock_guard lock(mutex_);
  placed.insert(placed.end(), newly_placed_.begin(), newly_placed_.end());
  newly_placed_.clear();
}

SinkStats DeviceSink::stats() const {
  const std::lock_guard lock(mutex_);
  SinkStats stats;
  stats.peak_staging = ring_->pinned() * pinned_.slot_size;
  stats.peak_device_staging = on_device_.count * on_device_.slot_size;
  stats.bytes_copied = copied_;
  return stats;
}

void DeviceSink::provide(uint32_t index, Memory memory) {
  const Target& target = plan_.targets[index];
  const TensorInfo& tensor = index_.tensors[target.tensor];
  check_memory(memory, target, tensor);
  Home home;
  home.host = memory.data;
  if (memory.kind == MemoryKind::device) {
    const auto& devices = devices_.devices;
    const auto device = std::find_if(devices.begin(), devices.end(), [&](const auto& one) {
      return one->index() == memory.device;
    });
    if (device == devices.end()) {
      throw Error(ErrorCode::usage, fmt::format("memory for tensor {} is on device {}, which this "
                                                "load does not use",
                                                tensor.name, memory.device));
    }
    home.copies = static_cast<uint32_t>(device - devices.begin());
    const DeviceFact& fact = (*device)->fact();
    const bool shared = (fact.integrated || fact.coherent) && target.size > 0;
    home.host =
        shared ? (*device)->host_address(reinterpret_cast<vendor::Address>(memory.data)) : nullptr;
    if (target.size > 0) {
      copies_[home.copies]->fence(devices_.consumer_stream ? devices_.consumer_stream(memory.device)
                                                           : nullptr);
    }
  }
  home.memory = std::move(memory);
  const std::lock_guard lock(mutex_);
  homes_[index] = std::move(home);
}

Memory DeviceSink::take(uint32_t index) {
  const Target& target = plan_.targets[index];
  Memory memory;
  {
    const std::lock_guard lock(mutex_);
    assert(!homes_[index].taken);
    memory = homes_[index].memory;
  }
  memory.size = target.size;
  if (index_.tensors[target.tensor].encoding == kZeros && target.size > 0) {
    if (memory.kind == MemoryKind::device) {
      copies_[homes_[index].copies]->fill_zeros(reinterpret_cast<vendor::Address>(memory.data),
                                                target.size);
    } else {
      std::memset(memory.data, 0, target.size);
    }
  }
  const std::lock_guard lock(mutex_);
  homes_[index].taken = true;
  homes_[index].memory.owner.reset();
  advance_due();
  return memory;
}

SinkFactory device_sink(DeviceSinkOptions options) {
  return [options = std::move(options)](const Index& index, const Plan& plan,
                                        std::vector<Placement> /*placements*/, SinkOptions wishes) {
    return std::make_unique<DeviceSink>(index, plan, std::move(wishes), options);
  };
}

}  // namespace inrush
