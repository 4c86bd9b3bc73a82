// Paths and keys out of URIs, where a broken escape is an error. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace inrush {

// "a%20b" -> "a b". Throws Error{usage} with the bare reason: no two hex digits, or a NUL byte.
std::string decoded_path(std::string_view text);

}  // namespace inrush
