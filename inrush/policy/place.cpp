// Placements: which ranges are mapped. Mapping is for whole windows, or whole files, and few.
#include <algorithm>

#include "inrush/policy/choose.h"

namespace inrush {
namespace {

// A process has 65,530 mappings in all; the rest is the application's.
constexpr uint32_t kMostMappings = 4096;

// Whether ranges [first, end), neighbours in one blob, are worth a mapping of their own.
bool worth_mapping(const Plan& plan, uint32_t first, uint32_t end, const Choice& choice) {
  if (choice.map_warm && choice.map_cold) return true;
  const Range& last = plan.ranges[end - 1];
  const uint64_t size = last.offset + last.size - plan.ranges[first].offset;
  const bool whole = plan.ranges[first].slack_before == plan.ranges[first].offset &&
                     last.slack_after == 0 && size < Residency::kWindow;
  return whole || size >= Residency::kWindow / 2;
}

}  // namespace

bool is_resident(const Range& range, const Facts& facts) {
  const uint64_t first = range.offset / Residency::kWindow;
  const uint64_t last = (range.offset + range.size - 1) / Residency::kWindow;
  for (uint64_t window = first; window <= last; ++window) {
    if (warmth_at(facts, range.blob, window) != Warmth::warm) return false;
  }
  return true;
}

std::vector<Placement> place(const Plan& plan, const Facts& facts, const Choice& choice) {
  std::vector<Placement> placements(plan.ranges.size(), Placement::in_place);
  if (!choice.map_warm && !choice.map_cold) return placements;
  const auto count = static_cast<uint32_t>(plan.ranges.size());
  const auto mappable = [&](uint32_t index) {
    if (choice.map_warm && choice.map_cold) return true;
    return is_resident(plan.ranges[index], facts) ? choice.map_warm : choice.map_cold;
  };
  uint32_t mappings = 0;
  for (uint32_t first = 0, next = 0; first < count && mappings < kMostMappings; first = next) {
    next = first + 1;
    if (!mappable(first)) continue;
    while (next < count && plan.ranges[next].blob == plan.ranges[first].blob &&
           plan.ranges[next].offset == plan.ranges[next - 1].offset + plan.ranges[next - 1].size &&
           mappable(next)) {
      ++next;
    }
    if (!worth_mapping(plan, first, next, choice)) continue;
    ++mappings;
    std::fill(placements.begin() + first, placements.begin() + next, Placement::mapped);
  }
  return placements;
}

}  // namespace inrush
