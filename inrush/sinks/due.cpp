#include "inrush/sinks/due.h"

#include <algorithm>

namespace inrush {

DueRanges due_ranges(const Plan& plan) {
  std::vector<uint32_t> highest(plan.ranges.size());  // target + 1 that ranges up to here feed
  uint32_t running = 0;
  for (size_t i = 0; i < plan.ranges.size(); ++i) {
    const Range& range = plan.ranges[i];
    for (uint32_t p = 0; p < range.piece_count; ++p) {
      running = std::max(running, plan.pieces[range.first_piece + p].target + 1);
    }
    highest[i] = running;
  }
  DueRanges ranges;
  ranges.due_after.resize(plan.targets.size());
  ranges.needed_for.resize(plan.targets.size());
  uint32_t due = 0;
  for (uint32_t i = 0; i < plan.targets.size(); ++i) {
    const Target& target = plan.targets[i];
    if (target.first_range <= target.last_range) due = std::max(due, target.last_range + 1);
    ranges.due_after[i] = due;
    ranges.needed_for[i] = std::max(i + 1, due == 0 ? 0 : highest[due - 1]);
  }
  return ranges;
}

}  // namespace inrush
