// What the kernel, a sandbox, the place or the user's rights refuse here, and what a load does in
// its stead: rows of doctor, lines of the debug log. Never an error. Asks the kernel at each call.
#pragma once

#include <string>
#include <vector>

#include "inrush/core/blob.h"
#include "inrush/policy/facts.h"

namespace inrush {

struct Fallback {
  std::string what;     // is not to be had: "io_uring"
  std::string why;      // "io_uring_setup: Operation not permitted"
  std::string instead;  // "Linux AIO"
};

// Of the machine and the user; with a blob, of its place too. `facts` are of that place.
std::vector<Fallback> list_fallbacks(const Facts& facts, const Blob* blob);

}  // namespace inrush
