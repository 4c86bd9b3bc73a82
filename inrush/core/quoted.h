// How names out of files appear in errors and logs: in quotes, control characters and broken
// UTF-8 escaped (a hostile name must not drive a terminal), long ones cut in the middle.
#pragma once

#include <string>
#include <string_view>

namespace inrush {

std::string quoted(std::string_view name);

// Exact matches, so that they are taken before std::quoted, which is found for a std::string too.
inline std::string quoted(const char* name) { return quoted(std::string_view(name)); }
inline std::string quoted(const std::string& name) { return quoted(std::string_view(name)); }

}  // namespace inrush
