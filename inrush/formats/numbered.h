// Files that are numbered as parts of a whole: NAME-00002-of-00005.EXT. Pure; any thread.
#pragma once

#include <string>
#include <vector>

namespace inrush {

// Names of the files that these belong to and that are not among them, in order.
std::vector<std::string> missing_parts(const std::vector<std::string>& entries);

}  // namespace inrush
