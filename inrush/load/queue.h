// The queue of ranges that all lanes of a load drain. Each range is taken by one lane at a time and
// may be given back. Thread-safe; nothing blocks.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "inrush/policy/choose.h"

namespace inrush {

struct Run {
  uint32_t first = 0;
  uint32_t count = 0;
};

// What one lane asks for.
struct Appetite {
  Coverage coverage = Coverage::all;
  uint32_t most = 1;              // ranges
  bool sequential = false;        // `next` if it is there, else begin far from other lanes
  uint32_t next = UINT32_MAX;     // one past the last range this lane took, or its share's first
  uint32_t horizon = UINT32_MAX;  // ranges from here on are not wanted yet
};

class RangeQueue {
 public:
  // resident[i]: range i belongs to the lanes that cover resident ranges. done[i]: nothing to do.
  RangeQueue(const std::vector<bool>& resident, const std::vector<bool>& done);

  // The next ranges for a lane, neighbours in number, or nothing for now.
  std::optional<Run> take(const Appetite& appetite);

  void give_back(Run run);

  // From now on these belong to the lanes that cover resident ranges, taken or not.
  void turn_over(const std::vector<bool>& ranges);

  // Ranges that are still to be taken.
  [[nodiscard]] uint32_t left() const;

  // Whether any range of this coverage is still to be taken.
  [[nodiscard]] bool empty(Coverage coverage) const;

 private:
  using Segments = std::map<uint32_t, uint32_t>;  // first -> end, disjoint, not touching

  static bool continues(const Segments& segments, const Appetite& appetite);
  static std::optional<Run> take_from(Segments& segments, const Appetite& appetite);
  static uint32_t begin_far(const Segments& segments, const Appetite& appetite);

  mutable std::mutex mutex_;
  std::vector<bool> resident_;
  Segments cold_;
  Segments warm_;
};

}  // namespace inrush
