#include "inrush/sinks/host.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "inrush/base/align.h"
#include "inrush/base/madvise.h"
#include "inrush/sinks/due.h"
#include "inrush/sinks/rows.h"

namespace inrush {
namespace {

// From this size on, memory of a target's own comes from the kernel, in huge pages if it will.
constexpr uint64_t kOwnMapping = 1 * kMiB;
// Where moved tensors begin, which is what other libraries take without a copy of their own.
constexpr uint64_t kMovedAlign = 64;
// Small enough that huge pages across it cost no more than reading across it does.
constexpr uint64_t kHugeGap = 64 * kKiB;

std::shared_ptr<void> allocate_own(uint64_t size) {
  if (size < kOwnMapping) {
    void* memory = std::aligned_alloc(64, align_up(std::max<uint64_t>(size, 1), 64));
    if (memory == nullptr) {
      throw Error(ErrorCode::memory, fmt::format("allocate {} bytes for a tensor", size));
    }
    return {memory, [](void* address) { std::free(address); }};
  }
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::memory, fmt::format("allocate {} bytes for a tensor", size));
  }
  advise_huge_pages(memory, size);
  return {memory, [size](void* address) { ::munmap(address, size); }};
}

}  // namespace

uint64_t HostSink::least_budget(const PlanLimits& limits) {
  return limits.range_size + 2 * kSlotMargin;
}

HostSink::HostSink(const Index& index, const Plan& plan, std::vector<Placement> placements,
                   SinkOptions options)
    : index_(index),
      plan_(plan),
      options_(std::move(options)),
      arena_(Arena::reserve(index.blobs)),
      homes_(plan.targets.size()),
      states_(plan.ranges.size(), State::waiting),
      in_slot_(plan.ranges.size()),
      charged_(plan.ranges.size()) {
  layout_.placements = std::move(placements);
  layout_.mapped.resize(plan.targets.size());
  layout_.given.resize(plan.targets.size());
  uint64_t largest = 0;
  for (const Range& range : plan.ranges) largest = std::max(largest, range.size);
  slot_size_ = align_up(largest, 4 * kKiB) + 2 * kSlotMargin;
  if (options_.budget < slot_size_) {
    throw Error(ErrorCode::memory, fmt::format("budget of {} bytes is below the least that this "
                                               "load can work in, {} bytes",
                                               options_.budget, slot_size_));
  }
  settle_homes(options_.out);
  settle_placements();
  place_mappings();
  settle_needs();
  advance_due();
}

HostSink::~HostSink() {
  for (const Slot& slot : slots_) std::free(slot.data);
  for (size_t i = 0; i < homes_.size(); ++i) {
    const Target& target = plan_.targets[i];
    if (!homes_[i].lies_in_arena() || homes_[i].taken) continue;
    arena_->drop(index_.tensors[target.tensor].blob, homes_[i].start, target.size);
  }
}

void HostSink::settle_homes(std::map<std::string, Memory>& out) {
  std::vector<bool> claimed(homes_.size(), options_.caller_memory);
  for (size_t i = 0; i < homes_.size(); ++i) {
    if (options_.caller_memory) homes_[i].kind = Kind::caller;
    const auto given = out.find(index_.tensors[plan_.targets[i].tensor].name);
    if (given == out.end()) continue;
    claimed[i] = layout_.given[i] = true;
    provide(static_cast<uint32_t>(i), given->second);
  }
  out.clear();
  settle_arena_homes(claimed);
}

void HostSink::settle_arena_homes(const std::vector<bool>& claimed) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < homes_.size(); ++i) {
    const Target& target = plan_.targets[i];
    if (!claimed[i] && target.contiguous && target.size > 0) order.push_back(i);
  }
  const auto place = [&](uint32_t i) {
    return std::pair(index_.tensors[plan_.targets[i].tensor].blob, plan_.targets[i].file_offset);
  };
  const auto before = [&](uint32_t a, uint32_t b) { return place(a) < place(b); };
  if (!std::is_sorted(order.begin(), order.end(), before)) {
    std::stable_sort(order.begin(), order.end(), before);
  }
  uint32_t blob = UINT32_MAX;
  uint64_t end = 0;
  for (const uint32_t i : order) {
    const auto [this_blob, offset] = place(i);
    const uint32_t align = alignment_of(index_.tensors[plan_.targets[i].tensor]);
    const bool congruent = is_aligned(offset, align);
    // Towards the front, where the header of a record is.
    const uint64_t start = congruent ? offset : align_down(offset, kMovedAlign);
    // Two targets that want the same bytes each get their own: one of them from memory of its own.
    if (this_blob == blob && start < end) continue;
    blob = this_blob;
    end = start + plan_.targets[i].size;
    homes_[i].kind = congruent ? Kind::arena : Kind::moved;
    homes_[i].start = start;
    homes_[i].data = arena_->at(blob, start);
    arena_->pin(blob, start, plan_.targets[i].size);
    if (!congruent) moved_.emplace_back(homes_[i].data, plan_.targets[i].size);
  }
}

void HostSink::settle_placements() {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  for (uint32_t i = 0; i < plan_.ranges.size(); ++i) {
    const Range& range = plan_.ranges[i];
    if (layout_.placements[i] != Placement::mapped) continue;
    const auto first = plan_.pieces.begin() + range.first_piece;
    // Bytes that also go elsewhere would be copied out of a mapping, which a shrinking file turns
    // into a signal: they are read instead. So would be what is read into a page of one.
    const bool all = std::all_of(first, first + range.piece_count, [&](const Piece& piece) {
      return homes_[piece.target].kind == Kind::arena;
    });
    const uint64_t start = align_down(range.offset, page);
    const uint64_t end = align_up(range.offset + range.size, page);
    if (!all || touches_moved(arena_->at(range.blob, start), end - start)) {
      layout_.placements[i] = Placement::in_place;
    }
  }
}

void HostSink::place_mappings() {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto count = static_cast<uint32_t>(plan_.ranges.size());
  for (uint32_t first = 0, next = 0; first < count; first = next) {
    const Range& range = plan_.ranges[first];
    const bool maps = layout_.placements[first] == Placement::mapped;
    const bool fills = !maps && fills_arena(first);
    uint64_t end = range.offset + range.size;
    for (next = first + 1; next < count; ++next) {
      const Range& follower = plan_.ranges[next];
      const bool joins = follower.blob == range.blob &&
                         layout_.placements[next] == layout_.placements[first] &&
                         (maps || fills_arena(next) == fills) && follower.offset >= end &&
                         follower.offset <= (maps ? align_up(end, page) : end + kHugeGap);
      if (!joins) break;
      end = follower.offset + follower.size;
    }
    Region region;
    if (maps) {
      const uint64_t start = align_down(range.offset, page);
      arena_->place_mapping(index_.blobs[range.blob], range.blob, start,
                            align_up(end, page) - start);
      region.data = arena_->at(range.blob, start);
      region.size = align_up(end, page) - start;
      region.backing = Backing::mapping;
      region.id = static_cast<uint32_t>(layout_.regions.size());
      layout_.regions.push_back(region);
    } else if (fills) {
      arena_->expect(range.blob, range.offset, end - range.offset);
    }
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (layout_.placements[i] != Placement::mapped) continue;
    const Range& range = plan_.ranges[i];
    for (uint32_t p = 0; p < range.piece_count; ++p) {
      layout_.mapped[plan_.pieces[range.first_piece + p].target] = true;
    }
  }
  Region whole;
  whole.data = arena_->base();
  whole.size = arena_->size();
  whole.id = static_cast<uint32_t>(layout_.regions.size());
  layout_.regions.push_back(whole);
}

void HostSink::settle_needs() {
  DueRanges ranges = due_ranges(plan_);
  due_after_ = std::move(ranges.due_after);
  layout_.needed_for = std::move(ranges.needed_for);
}

void HostSink::advance_due() {
  while (head_ < homes_.size() && homes_[head_].taken) ++head_;
  const auto all = static_cast<uint32_t>(plan_.ranges.size());
  const uint32_t due = options_.collect || head_ == homes_.size() ? all : due_after_[head_];
  for (; due_ < due; ++due_) {
    used_ -= charged_[due_];
    charged_[due_] = 0;
  }
}

template <typename Is>
bool HostSink::any_home(uint32_t range, Is is) const {
  const auto first = plan_.pieces.begin() + plan_.ranges[range].first_piece;
  return std::any_of(first, first + plan_.ranges[range].piece_count,
                     [&](const Piece& piece) { return is(homes_[piece.target]); });
}

bool HostSink::in_arena(uint32_t range) const {
  return any_home(range, [](const Home& home) { return home.kind == Kind::arena; });
}

bool HostSink::fills_arena(uint32_t range) const {
  return any_home(range, [](const Home& home) { return home.lies_in_arena(); });
}

// Whether what is congruent with the file there is (also) memory of moved targets.
bool HostSink::touches_moved(const std::byte* begin, uint64_t size) const {
  const auto ends_later = [](const std::byte* address, std::span<std::byte> home) {
    return address < home.data() + home.size();
  };
  const auto home = std::upper_bound(moved_.begin(), moved_.end(), begin, ends_later);
  return home != moved_.end() && home->data() < begin + size;
}

std::byte* HostSink::direct_address(uint32_t index) const {
  const Range& range = plan_.ranges[index];
  if (in_arena(index)) {
    std::byte* const address = arena_->at(range.blob, range.offset);
    return touches_moved(address, range.size) ? nullptr : address;
  }
  const Piece& piece = plan_.pieces[range.first_piece];
  const bool plain = range.piece_count == 1 && piece.rows == 1 && piece.row_size == range.size;
  return plain ? homes_[piece.target].data + piece.target_offset : nullptr;
}

bool HostSink::fits(uint32_t range, uint64_t bytes) const {
  // One slot is always left for what is due.
  return range < due_ ? used_ + bytes <= options_.budget
                      : used_ + bytes + slot_size_ <= options_.budget;
}

void HostSink::charge(uint32_t range, uint64_t bytes) {
  if (range < due_) return;
  charged_[range] += bytes;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
}

bool HostSink::find_homes(uint32_t index) {
  const Range& range = plan_.ranges[index];
  for (uint32_t p = 0; p < range.piece_count; ++p) {
    const uint32_t target = plan_.pieces[range.first_piece + p].target;
    Home& home = homes_[target];
    if (home.data != nullptr) continue;
    if (home.kind == Kind::caller) return false;
    home.owner = allocate_own(plan_.targets[target].size);
    home.data = static_cast<std::byte*>(home.owner.get());
  }
  return true;
}

std::optional<Grant> HostSink::try_reserve(uint32_t first, uint32_t count,
                                           const EngineTraits& traits, bool hedge) {
  std::optional<Grant> grant = reserve(first, count, traits, hedge);
  // Not under the lock: others need not wait for memory.
  if (grant) {
    const Range& last = plan_.ranges[grant->first + grant->count - 1];
    const Range& range = plan_.ranges[first];
    arena_->prepare(range.blob, range.offset, last.offset + last.size - range.offset);
  }
  return grant;
}

std::optional<Grant> HostSink::reserve(uint32_t first, uint32_t count, const EngineTraits& traits,
                                       bool hedge) {
  const std::lock_guard lock(mutex_);
  // A second reader may only fill a slot, and only where the first one does too: final memory has
  // one possible writer.
  if (hedge && (states_[first] != State::granted || !in_slot_[first])) return std::nullopt;
  if (!hedge && states_[first] != State::waiting) return std::nullopt;
  const uint64_t size = plan_.ranges[first].size;
  if (first >= due_ && !fits(first, size)) return std::nullopt;
  if (!find_homes(first)) return std::nullopt;
  std::optional<Grant> grant;
  if (!hedge && layout_.placements[first] != Placement::copied) {
    grant = in_place_grant(first, count, traits);
  }
  if (!grant) grant = slot_grant(first, traits);
  if (grant) grant->hedge = hedge;
  if (!grant || hedge) return grant;
  for (uint32_t i = 0; i < grant->count; ++i) {
    states_[first + i] = State::granted;
    in_slot_[first + i] = grant->slot >= 0;
    charge(first + i, plan_.ranges[first + i].size);
  }
  return grant;
}

bool HostSink::may_join(uint32_t index, std::byte* address, uint64_t end) const {
  const Range& range = plan_.ranges[index];
  return states_[index] == State::waiting && range.offset == end &&
         layout_.placements[index] == layout_.placements[index - 1] &&
         range.blob == plan_.ranges[index - 1].blob && direct_address(index) == address;
}

std::optional<Grant> HostSink::in_place_grant(uint32_t first, uint32_t count,
                                              const EngineTraits& traits) {
  std::byte* const address = direct_address(first);
  if (address == nullptr) return std::nullopt;
  const Range& range = plan_.ranges[first];
  uint32_t last = first;
  uint64_t end = range.offset + range.size;
  for (uint32_t next = first + 1; next < first + count && next < states_.size(); ++next) {
    const uint64_t size = end - range.offset + plan_.ranges[next].size;
    if (size > traits.largest_read || !find_homes(next)) break;
    if (!may_join(next, address + (end - range.offset), end)) break;
    if (next >= due_ && !fits(next, size)) break;
    end += plan_.ranges[next].size;
    last = next;
  }
  const uint64_t blob_size = index_.blobs[range.blob].size;
  const bool arena = in_arena(first);
  Grant grant;
  grant.first = first;
  grant.count = last - first + 1;
  grant.offset = align_down(range.offset, traits.offset_align);
  const uint64_t aligned_end = align_up(end, traits.offset_align);
  grant.size = aligned_end - grant.offset;
  grant.required = end - grant.offset;
  grant.target = address - (range.offset - grant.offset);
  if (!is_aligned(grant.target, traits.memory_align)) return std::nullopt;
  // What alignment adds must be bytes of the arena that nobody wants: never the caller's memory.
  const uint64_t before = range.offset - grant.offset;
  const uint64_t after = std::min(aligned_end, std::max(blob_size, end)) - end;
  if (before > (arena ? range.slack_before : 0)) return std::nullopt;
  if (after > (arena ? plan_.ranges[last].slack_after : 0)) return std::nullopt;
  if (!arena && aligned_end != end) return std::nullopt;
  if (arena && touches_moved(grant.target, grant.size)) return std::nullopt;
  return grant;
}

std::optional<Grant> HostSink::slot_grant(uint32_t index, const EngineTraits& traits) {
  const Range& range = plan_.ranges[index];
  assert(traits.offset_align <= kSlotMargin);
  const uint64_t also = index < due_ ? 0 : range.size;
  if (!fits(index, slot_size_ + also)) return std::nullopt;
  auto slot = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.busy; });
  if (slot == slots_.end()) {
    auto* memory =
        static_cast<std::byte*>(std::aligned_alloc(kSlotMargin, align_up(slot_size_, kSlotMargin)));
    if (memory == nullptr) throw Error(ErrorCode::memory, "allocate a staging slot");
    slot = slots_.insert(slots_.end(), Slot{memory, false});
  }
  slot->busy = true;
  used_ += slot_size_;
  peak_ = std::max(peak_, used_);
  Grant grant;
  grant.first = index;
  grant.count = 1;
  grant.offset = align_down(range.offset, traits.offset_align);
  grant.size = align_up(range.offset + range.size, traits.offset_align) - grant.offset;
  grant.required = range.offset + range.size - grant.offset;
  grant.target = slot->data;
  grant.slot = static_cast<int32_t>(slot - slots_.begin());
  return grant;
}

void HostSink::free_slot(int32_t slot) {
  if (slot < 0) return;
  slots_[static_cast<size_t>(slot)].busy = false;
  used_ -= slot_size_;
}

uint64_t HostSink::copy_pieces(uint32_t index, const std::byte* source, bool skip_arena) const {
  const Range& range = plan_.ranges[index];
  uint64_t copied = 0;
  for (uint32_t p = 0; p < range.piece_count; ++p) {
    const Piece& piece = plan_.pieces[range.first_piece + p];
    const Home& home = homes_[piece.target];
    if (skip_arena && home.kind == Kind::arena) continue;
    copy_rows(piece, home.data, source);
    copied += piece.rows * piece.row_size;
  }
  return copied;
}

void HostSink::landed(const Grant& grant) {
  {
    const std::lock_guard lock(mutex_);
    if (states_[grant.first] != State::granted) {  // a hedge that came second
      free_slot(grant.slot);
      return;
    }
    for (uint32_t i = 0; i < grant.count; ++i) states_[grant.first + i] = State::placing;
  }
  uint64_t copied = 0;
  for (uint32_t i = 0; i < grant.count; ++i) {
    const Range& range = plan_.ranges[grant.first + i];
    const std::byte* source = grant.target + (range.offset - grant.offset);
    if (grant.slot >= 0) {
      copied += copy_pieces(grant.first + i, source, false);
    } else if (in_arena(grant.first + i)) {
      copied += copy_pieces(grant.first + i, source, true);
    }
  }
  const std::lock_guard lock(mutex_);
  copied_ += copied;
  free_slot(grant.slot);
  for (uint32_t i = 0; i < grant.count; ++i) {
    states_[grant.first + i] = State::placed;
    newly_placed_.push_back(grant.first + i);
  }
}

bool HostSink::release(const Grant& grant) {
  const std::lock_guard lock(mutex_);
  free_slot(grant.slot);
  // Ranges of one grant are in one state: only a single one can have been placed by a hedge.
  if (grant.hedge || states_[grant.first] != State::granted) return false;
  for (uint32_t i = grant.first; i < grant.first + grant.count; ++i) {
    states_[i] = State::waiting;
    used_ -= charged_[i];
    charged_[i] = 0;
  }
  return true;
}

void HostSink::poll(std::vector<uint32_t>& placed) {
  const std::lock_guard lock(mutex_);
  placed.insert(placed.end(), newly_placed_.begin(), newly_placed_.end());
  newly_placed_.clear();
}

Memory HostSink::take(uint32_t index) {
  const Target& target = plan_.targets[index];
  const std::lock_guard lock(mutex_);
  Home& home = homes_[index];
  assert(!home.taken);
  if (home.data == nullptr && home.kind != Kind::caller) {  // no bytes, so no range found its home
    home.owner = allocate_own(target.size);
    home.data = static_cast<std::byte*>(home.owner.get());
  }
  const bool fresh = home.kind != Kind::caller && target.size >= kOwnMapping;  // zeros already
  if (index_.tensors[target.tensor].encoding == kZeros && !fresh && target.size > 0) {
    std::memset(home.data, 0, target.size);
  }
  home.taken = true;
  Memory memory;
  memory.data = home.data;
  memory.size = target.size;
  memory.owner = home.lies_in_arena()
                     ? arena_->hold(index_.tensors[target.tensor].blob, home.start, target.size)
                     : std::move(home.owner);
  advance_due();
  return memory;
}

void HostSink::provide(uint32_t index, Memory memory) {
  const Target& target = plan_.targets[index];
  check_memory(memory, target, index_.tensors[target.tensor]);
  const std::lock_guard lock(mutex_);
  homes_[index].kind = Kind::caller;
  homes_[index].data = memory.data;
  homes_[index].owner = std::move(memory.owner);
}

SinkStats HostSink::stats() const {
  const std::lock_guard lock(mutex_);
  SinkStats stats;
  stats.peak_staging = peak_;
  stats.bytes_copied = copied_;
  return stats;
}

}  // namespace inrush
