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
// What is registered at a time, and the budget that this needs.
constexpr uint64_t kWindow = 4 * kMiB;
constexpr uint64_t kLeastForWindows = 32 * kMiB;
constexpr GovernorLimits kStreams{.first = 4, .most = 8, .least = 1};
// What is done and no slot: a fence.
constexpr uint64_t kFence = UINT64_MAX;
constexpr auto kPatienceAtEnd = std::chrono::seconds(2);

// What a device that does not answer may still read or write. It is never freed.
struct Held {
  std::unique_ptr<PinnedRing> ring;
  std::unique_ptr<DeviceSlots> slots;
  std::unique_ptr<FileWindows> windows;
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
  fences_.resize(devices_.devices.size());
  for (uint32_t i = 0; i < fences_.size(); ++i) {
    const auto done = [this, i](uint64_t tag) {
      tag == kFence ? fence_reached(i) : batch_done(static_cast<uint32_t>(tag));
    };
    copies_.push_back(std::make_unique<DeviceCopies>(
        devices_.devices[i], kStreams,
        DeviceCopies::Callbacks{done, [this] { swept(); },
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
  auto* held = new Held{std::move(ring_), std::move(device_slots_), std::move(file_windows_), {}};
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
  // What is registered is pinned too: three quarters of the budget, where that leaves slots enough
  // for what cannot be.
  const bool windows = options_.register_pages && options_.budget >= kLeastForWindows;
  const uint64_t registered = windows ? options_.budget / 4 * 3 : 0;
  pinned_ = make_shelf(options_.budget - registered, kPinnedBlock, "pinned");
  ring_ = std::make_unique<PinnedRing>(device, pinned_.slot_size, pinned_.count);
  layout_.regions = {ring_->region()};
  if (options_.device_staging > 0) {
    on_device_ = make_shelf(options_.device_staging, kDeviceBlock, "device");
    on_device_.first = pinned_.count;
    device_slots_ = std::make_unique<DeviceSlots>(device, on_device_.slot_size, on_device_.count);
    layout_.regions.push_back(device_slots_->region());
    layout_.regions.back().id = 1;
  }
  if (windows) {
    windows_ = make_shelf(registered, kWindow, "registered");
    windows_.first = pinned_.count + on_device_.count;
    file_windows_ = std::make_unique<FileWindows>(device, windows_.slot_size, windows_.count);
    layout_.regions.push_back(file_windows_->region());
    layout_.regions.back().id = 2;
  }
  slots_.resize(pinned_.count + on_device_.count + windows_.count);
}

void DeviceSink::advance_due() {
  while (head_ < homes_.size() && homes_[head_].taken) ++head_;
  const auto all = static_cast<uint32_t>(plan_.ranges.size());
  due_ = options_.collect || head_ == homes_.size() ? all : due_after_[head_];
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
  std::unique_lock lock(mutex_);
  Slot& slot = slots_[index];
  if (--slot.batches > 0) return;
  if (is_window(index)) {  // which takes its time
    lock.unlock();
    file_windows_->close(index - windows_.first);
    lock.lock();
  }
  --copying_;
  ++freed_;
  mark_placed(slot.first, slot.count);
  free_slot(static_cast<int32_t>(index));
}

// Nobody else would ring for lanes once nothing is copied any more: then all of them look again.
void DeviceSink::swept() {
  uint32_t slots = 0;
  {
    const std::lock_guard lock(mutex_);
    slots = std::exchange(freed_, 0);
    if (slots == 0) return;
    if (copying_ == 0) slots = UINT32_MAX;
  }
  if (options_.placed) options_.placed(slots);
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
  stats.peak_staging = ring_->pinned() * pinned_.slot_size + most_windows_;
  stats.refusal = refusal_;
  stats.peak_device_staging = on_device_.count * on_device_.slot_size;
  stats.bytes_copied = copied_;
  return stats;
}

// All memory of one answer had been given before the first of it comes here: one event stands
// behind whatever the consumer's stream may still do with any of it. Copies wait for that on their
// streams; where the host writes by itself, nothing is granted before.
void DeviceSink::fence(uint32_t device) {
  const std::optional<uint64_t> answer =
      devices_.answers ? std::optional(devices_.answers->load()) : std::nullopt;
  Fence& fence = fences_[device];
  if (answer && fence.answer == answer) return;
  const DeviceFact& fact = devices_.devices[device]->fact();
  const int index = devices_.devices[device]->index();
  copies_[device]->fence(devices_.consumer_stream ? devices_.consumer_stream(index) : nullptr,
                         fact.integrated || fact.coherent ? std::optional(kFence) : std::nullopt);
  fence.answer = answer;
  ++fence.recorded;
}

void DeviceSink::fence_reached(uint32_t device) {
  {
    const std::lock_guard lock(mutex_);
    ++fences_[device].reached;  // they are in order
    if (!asked_) return;
  }
  if (options_.placed) options_.placed(UINT32_MAX);  // who was granted nothing asks again
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
    if (target.size > 0) fence(home.copies);
    home.fence = home.host != nullptr ? fences_[home.copies].recorded : 0;
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
