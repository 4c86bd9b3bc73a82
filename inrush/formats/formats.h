// The table of formats, and the one way to turn a place into an Index.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "inrush/core/format.h"

namespace inrush {

std::span<const Format> format_table();

// Finds the format of what lies in the store (or of these entries only) and indexes it. A
// *.index.json decides which files belong; strays are ignored, missing ones are an Error{data}
// naming them. Throws Error{data} if no format recognises anything.
Index read_index(Store& store, const std::vector<std::string>& entries = {});

}  // namespace inrush
