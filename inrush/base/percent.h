// Percent-encoding, as URIs have it. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace inrush {

// "a%20b" -> "a b". Throws Error{usage} with the bare reason: no two hex digits, or a NUL byte.
std::string percent_decoded(std::string_view text);

}  // namespace inrush
