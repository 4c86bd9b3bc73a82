// What DeviceSink grants: memory that the host can touch, slots, and windows onto files.
#include <algorithm>
#include <cassert>

#include "inrush/base/align.h"
#include "inrush/sinks/device.h"
#include "inrush/sinks/rows.h"

namespace inrush {
namespace {

constexpr uint32_t kDeviceMemory = 1U << static_cast<uint32_t>(MemoryKind::device);
// Where so many slots are being copied from, the device is what is waited for: one comes free soon,
// and more of them would be found, cleared and pinned for nothing. 16 MiB are 0.3 ms of PCIe 5.
constexpr uint32_t kEnoughCopying = 16;

}  // namespace

// Memory for all of it, which nothing that the host cannot wait for still uses.
bool DeviceSink::has_memory(uint32_t range) const {
  const auto first = plan_.pieces.begin() + plan_.ranges[range].first_piece;
  return std::all_of(first, first + plan_.ranges[range].piece_count, [&](const Piece& piece) {
    const Home& home = homes_[piece.target];
    if (home.memory.data == nullptr) return false;
    return home.fence == 0 || home.fence <= fences_[home.copies].reached;
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
  asked_ = true;
  // A second reader may land beside the first one, in a slot; in place there is one writer.
  if (states_[first] != (hedge ? State::granted : State::waiting)) return std::nullopt;
  if (failed_ || !has_memory(first) || (hedge && direct_address(first))) return std::nullopt;
  if (!hedge && direct_address(first) != nullptr) {
    if (auto grant = in_place_grant(first, traits)) return grant;
  }
  if (takes_window(first, traits, hedge)) {
    if (windows_.busy == windows_.count) return std::nullopt;
    if (auto grant = window_grant(first, count, traits, lock)) return grant;
    if (failed_ || states_[first] != State::waiting) return std::nullopt;
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

// Not where the host has to read it: a file that shrank would end the process.
bool DeviceSink::takes_window(uint32_t first, const EngineTraits& traits, bool hedge) const {
  if (!file_windows_ || !refusal_.empty() || !traits.populates || hedge) return false;
  const auto piece = plan_.pieces.begin() + plan_.ranges[first].first_piece;
  return std::all_of(piece, piece + plan_.ranges[first].piece_count,
                     [&](const Piece& one) { return homes_[one.target].host == nullptr; });
}

// Nothing where the driver refuses: the refusal stays, and everything goes through slots.
std::optional<Grant> DeviceSink::window_grant(uint32_t first, uint32_t count,
                                              const EngineTraits& traits,
                                              std::unique_lock<std::mutex>& lock) {
  const std::optional<uint32_t> slot = find_slot(windows_, windows_.count, true);
  if (!slot) return std::nullopt;
  Grant grant = slot_grant(first, count, traits);
  grant.slot = static_cast<int32_t>(*slot);
  for (uint32_t i = 0; i < grant.count; ++i) states_[first + i] = State::granted;
  lock.unlock();
  std::string refusal;
  const int fd = index_.blobs[plan_.ranges[first].blob].fd;
  grant.target = file_windows_->open(*slot - windows_.first, fd, grant.offset, grant.size, refusal);
  lock.lock();
  most_windows_ = std::max(most_windows_, windows_.busy * windows_.slot_size);
  if (grant.target != nullptr) return grant;
  if (refusal_.empty()) refusal_ = refusal;
  for (uint32_t i = 0; i < grant.count; ++i) states_[first + i] = State::waiting;
  free_slot(grant.slot);
  return std::nullopt;
}

Grant DeviceSink::slot_grant(uint32_t first, uint32_t count, const EngineTraits& traits) const {
  assert(traits.offset_align <= kSlotMargin);
  const Range& range = plan_.ranges[first];
  uint64_t end = range.offset + range.size;
  const bool window = takes_window(first, traits, false);
  const Shelf& shelf = traits.memory_kinds == kDeviceMemory ? on_device_
                       : window                             ? windows_
                                                            : pinned_;
  const uint64_t most = std::min(shelf.block_size, traits.largest_read - 2 * traits.offset_align);
  uint32_t next = first + 1;
  for (; next < first + count && next < states_.size(); ++next) {
    const Range& follower = plan_.ranges[next];
    const bool joins = states_[next] == State::waiting && follower.blob == range.blob &&
                       follower.offset == end && end + follower.size - range.offset <= most &&
                       has_memory(next) && direct_address(next) == nullptr &&
                       (!window || takes_window(next, traits, false));
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
    if (options_.placed) options_.placed(UINT32_MAX);  // who found no slot looks again
    lock.lock();
  }
  return std::nullopt;
}

void DeviceSink::free_slot(int32_t slot) {
  if (slot < 0) return;
  const auto index = static_cast<uint32_t>(slot);
  if (is_window(index)) file_windows_->close(index - windows_.first);
  slots_[index] = {};
  --(is_on_device(index) ? on_device_ : is_window(index) ? windows_ : pinned_).busy;
}

}  // namespace inrush
