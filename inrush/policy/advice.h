// What a user could change so that loads become faster or safer, and why. Pure; for doctor.
#pragma once

#include <string>
#include <vector>

#include "inrush/policy/facts.h"

namespace inrush {

struct Advice {
  std::string what;  // to do
  std::string why;   // it helps
};

// What doctor knows beyond the facts.
struct Surroundings {
  std::string profile_path;     // empty: rates are not kept
  std::string registry_folder;  // empty: processes do not find each other
};

// The most useful first. Empty: nothing to change.
std::vector<Advice> advise(const Facts& facts, const Surroundings& surroundings);

}  // namespace inrush
