// The filesystem's part of the facts: asks the kernel about the place where one blob lies.
// Cheap (well under 1 ms, no request to a far server); any thread.
#pragma once

#include "inrush/core/blob.h"
#include "inrush/policy/facts.h"

namespace inrush {

// A blob without a descriptor gives a fact without a type, about which nothing is promised.
FilesystemFact ask_filesystem(const Blob& blob);

}  // namespace inrush
