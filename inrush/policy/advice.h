// What a user could change so that loads become faster or safer, and why. For doctor.
#pragma once

#include <string>
#include <vector>

#include "inrush/policy/facts.h"
#include "inrush/policy/profile.h"

namespace inrush {

struct Advice {
  std::string what;  // to do
  std::string why;   // it helps
};

// What doctor knows beyond the facts.
struct Surroundings {
  ProfileProblem profile;          // empty: none
  std::string registry_folder;     // empty: processes do not find each other
  bool memory_taken_back = false;  // by the hypervisor, as soon as it is free
};

Surroundings ask_surroundings();

// The most useful first. Empty: nothing to change.
std::vector<Advice> advise(const Facts& facts, const Surroundings& surroundings);

}  // namespace inrush
