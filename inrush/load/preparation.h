// Everything about a load that is settled before its first byte. A value that the board owns.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "inrush/base/leases.h"
#include "inrush/load.h"
#include "inrush/policy/registry.h"

namespace inrush {

struct Preparation {
  Checkpoint checkpoint;
  LoadOptions options;
  Plan plan;
  Facts facts;
  Choice choice;
  uint64_t budget = 0;
  std::unique_ptr<Registration> registration;
  std::shared_ptr<Leases> lent = std::make_shared<Leases>();  // the store's descriptors, to streams
};

// What reads a range when nothing else can: threads that read through the page cache.
LaneChoice fallback_lane(Coverage coverage, const Facts& facts);

// What lanes have in common that can stand in for each other.
std::string row_of(const LaneChoice& lane);

}  // namespace inrush
