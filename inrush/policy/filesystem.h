// The filesystem's part of the facts: asks the kernel about the place where one blob lies.
// Cheap (well under 1 ms, no request to a far server); any thread.
#pragma once

#include "inrush/core/blob.h"
#include "inrush/policy/facts.h"

namespace inrush {

// A remote blob gives its path's scheme as the type, its engine, and promises nothing else.
FilesystemFact ask_filesystem(const Blob& blob);

}  // namespace inrush
