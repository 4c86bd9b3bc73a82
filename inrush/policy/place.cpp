// Where each range of a plan goes under a choice: mapped, or read. Warm and cold part at windows,
// so mappings consist of whole windows but for the ends of what is wanted. Small runs are read: a
// mapping costs as much as a copy of them, and a process has only so many (65,530 by default).
#include <algorithm>
#include <cstdint>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/policy/choose.h"

namespace inrush {

namespace {

constexpr size_t kMostMappings = 4096;
constexpr uint64_t kLeastRun = 64 * kKiB;

bool is_mappable(Warmth warmth, const Choice& choice) {
  return warmth == Warmth::warm ? choice.map_warm : choice.map_cold;
}

// Neighbouring ranges of one blob that may all be mapped.
struct MapRun {
  size_t first = 0;
  size_t end = 0;
  uint64_t bytes = 0;
  bool whole = true;  // nothing else of its blob is wanted
};

// For each blob and window whether it may be mapped: neither it nor anything that a range shares
// with it may have to be read, so that mapped and read bytes never meet within a page.
std::vector<std::vector<bool>> mappable_windows(const Plan& plan, const Facts& facts,
                                                const Choice& choice) {
  std::vector<std::vector<bool>> mappable(facts.residency.size());
  for (size_t blob = 0; blob < mappable.size(); ++blob) {
    for (const Warmth warmth : facts.residency[blob].windows) {
      mappable[blob].push_back(is_mappable(warmth, choice));
    }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (const Range& range : plan.ranges) {
      if (range.blob >= mappable.size() || range.size == 0) continue;
      auto& windows = mappable[range.blob];
      const uint64_t first = std::min<uint64_t>(range.offset / Residency::kWindow, windows.size());
      const uint64_t end = std::min<uint64_t>(
          (range.offset + range.size - 1) / Residency::kWindow + 1, windows.size());
      const auto begin = windows.begin() + static_cast<ptrdiff_t>(first);
      const auto stop = windows.begin() + static_cast<ptrdiff_t>(end);
      const auto count = std::count(begin, stop, true);
      if (count == 0 || count == stop - begin) continue;
      std::fill(begin, stop, false);
      changed = true;
    }
  }
  return mappable;
}

bool may_map(const Range& range, const std::vector<std::vector<bool>>& mappable) {
  if (range.blob >= mappable.size() || range.size == 0) return false;
  const uint64_t window = range.offset / Residency::kWindow;
  return window < mappable[range.blob].size() && mappable[range.blob][window];
}

std::vector<MapRun> map_runs(const Plan& plan, const std::vector<std::vector<bool>>& mappable,
                             uint64_t page) {
  std::vector<MapRun> runs;
  const auto& ranges = plan.ranges;
  std::vector<uint32_t> runs_of_blob(mappable.size());
  for (size_t first = 0, next = 0; first < ranges.size(); first = next) {
    const Range& range = ranges[first];
    uint64_t end = range.offset + range.size;
    const bool maps = may_map(range, mappable);
    for (next = first + 1; next < ranges.size(); ++next) {
      const Range& follower = ranges[next];
      // What the sink joins into one mapping; gaps of less than a page do not part a run.
      if (follower.blob != range.blob || may_map(follower, mappable) != maps ||
          follower.offset < end || follower.offset - end >= page) {
        break;
      }
      end = follower.offset + follower.size;
    }
    if (range.blob < runs_of_blob.size()) ++runs_of_blob[range.blob];
    if (maps) runs.push_back({first, next, end - range.offset, true});
  }
  for (MapRun& run : runs) run.whole = runs_of_blob[ranges[run.first].blob] == 1;
  return runs;
}

}  // namespace

bool is_resident(const Range& range, const Facts& facts) {
  if (range.size == 0) return true;
  const uint64_t last = (range.offset + range.size - 1) / Residency::kWindow;
  for (uint64_t window = range.offset / Residency::kWindow; window <= last; ++window) {
    if (warmth_at(facts, range.blob, window) != Warmth::warm) return false;
  }
  return true;
}

std::vector<Placement> place(const Plan& plan, const Facts& facts, const Choice& choice) {
  std::vector<Placement> placements(plan.ranges.size(), Placement::in_place);
  if (!choice.map_warm && !choice.map_cold) return placements;
  std::vector<MapRun> runs =
      map_runs(plan, mappable_windows(plan, facts, choice), facts.machine.page_size);
  std::erase_if(runs, [](const MapRun& run) { return !run.whole && run.bytes < kLeastRun; });
  if (runs.size() > kMostMappings) {
    std::stable_sort(runs.begin(), runs.end(),
                     [](const MapRun& a, const MapRun& b) { return a.bytes > b.bytes; });
    runs.resize(kMostMappings);
  }
  for (const MapRun& run : runs) {
    std::fill(placements.begin() + static_cast<ptrdiff_t>(run.first),
              placements.begin() + static_cast<ptrdiff_t>(run.end), Placement::mapped);
  }
  return placements;
}

}  // namespace inrush
