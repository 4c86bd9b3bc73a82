// What of a plan is due: which ranges the oldest undelivered target waits for, and which targets
// must have memory before those can be granted. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "inrush/core/plan.h"

namespace inrush {

struct DueRanges {
  std::vector<uint32_t> due_after;   // per target: ranges below it are due when it is the oldest
  std::vector<uint32_t> needed_for;  // per target: as SinkLayout has it
};

DueRanges due_ranges(const Plan& plan);

}  // namespace inrush
