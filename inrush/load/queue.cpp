#include "inrush/load/queue.h"

#include <algorithm>

namespace inrush {
namespace {

// A stream that begins in the middle of another's run leaves at least this many ranges to it.
constexpr uint32_t kLeastSplit = 4;

void add(std::map<uint32_t, uint32_t>& segments, uint32_t first, uint32_t end) {
  auto next = segments.lower_bound(first);
  if (next != segments.end() && next->first == end) {
    end = next->second;
    next = segments.erase(next);
  }
  if (next != segments.begin()) {
    const auto before = std::prev(next);
    if (before->second == first) {
      before->second = end;
      return;
    }
  }
  segments.emplace(first, end);
}

}  // namespace

RangeQueue::RangeQueue(const std::vector<bool>& resident, const std::vector<bool>& done)
    : resident_(resident) {
  const auto count = static_cast<uint32_t>(resident.size());
  for (uint32_t first = 0, next = 0; first < count; first = next) {
    next = first + 1;
    while (next < count && resident[next] == resident[first] && done[next] == done[first]) ++next;
    if (!done[first]) (resident[first] ? warm_ : cold_).emplace(first, next);
  }
}

uint32_t RangeQueue::begin_far(const Segments& segments, const Appetite& appetite) {
  uint32_t best = segments.begin()->first;
  uint32_t longest = 0;
  for (const auto& [first, end] : segments) {
    if (first >= appetite.horizon) break;
    const uint32_t length = std::min(end, appetite.horizon) - first;
    if (length <= longest) continue;
    longest = length;
    // Range 0, or one after a gap, is nobody's next: begin there. Else leave half to whoever is
    // reading towards it.
    best = length >= 2 * kLeastSplit && first != 0 ? first + length / 2 : first;
  }
  return best;
}

bool RangeQueue::continues(const Segments& segments, const Appetite& appetite) {
  if (!appetite.sequential || appetite.next >= appetite.horizon) return false;
  const auto follow = segments.upper_bound(appetite.next);
  return follow != segments.begin() && std::prev(follow)->second > appetite.next;
}

std::optional<Run> RangeQueue::take_from(Segments& segments, const Appetite& appetite) {
  if (segments.empty() || segments.begin()->first >= appetite.horizon) return std::nullopt;
  auto segment = segments.begin();
  uint32_t first = segment->first;
  if (appetite.sequential) {
    first = continues(segments, appetite) ? appetite.next : begin_far(segments, appetite);
    segment = std::prev(segments.upper_bound(first));
  }
  const uint32_t end = segment->second;
  const uint32_t stop = std::min({end, appetite.horizon, first + std::max(appetite.most, 1U)});
  const uint32_t begin = segment->first;
  segments.erase(segment);
  if (begin < first) segments.emplace(begin, first);
  if (stop < end) segments.emplace(stop, end);
  return Run{first, stop - first};
}

std::optional<Run> RangeQueue::take(const Appetite& appetite) {
  const std::lock_guard lock(mutex_);
  if (appetite.coverage == Coverage::resident) return take_from(warm_, appetite);
  if (appetite.coverage == Coverage::cold) return take_from(cold_, appetite);
  bool warm_first =
      !warm_.empty() && (cold_.empty() || warm_.begin()->first < cold_.begin()->first);
  if (continues(warm_first ? cold_ : warm_, appetite)) warm_first = !warm_first;
  auto run = take_from(warm_first ? warm_ : cold_, appetite);
  return run ? run : take_from(warm_first ? cold_ : warm_, appetite);
}

void RangeQueue::give_back(Run run) {
  const std::lock_guard lock(mutex_);
  for (uint32_t first = run.first, next = first; first < run.first + run.count; first = next) {
    next = first + 1;
    while (next < run.first + run.count && resident_[next] == resident_[first]) ++next;
    add(resident_[first] ? warm_ : cold_, first, next);
  }
}

void RangeQueue::turn_over(const std::vector<bool>& ranges) {
  const std::lock_guard lock(mutex_);
  Segments left;
  for (const auto& [begin, end] : cold_) {
    for (uint32_t first = begin, next = begin; first < end; first = next) {
      next = first + 1;
      while (next < end && ranges[next] == ranges[first]) ++next;
      add(ranges[first] ? warm_ : left, first, next);
    }
  }
  cold_ = std::move(left);
  for (size_t i = 0; i < ranges.size(); ++i) resident_[i] = resident_[i] || ranges[i];
}

uint32_t RangeQueue::left() const {
  const std::lock_guard lock(mutex_);
  uint32_t count = 0;
  for (const Segments* segments : {&cold_, &warm_}) {
    for (const auto& [first, end] : *segments) count += end - first;
  }
  return count;
}

bool RangeQueue::empty(Coverage coverage) const {
  const std::lock_guard lock(mutex_);
  return (coverage == Coverage::resident || cold_.empty()) &&
         (coverage == Coverage::cold || warm_.empty());
}

}  // namespace inrush
