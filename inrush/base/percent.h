// Paths, keys and URLs out of their percent-encoding. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace inrush {

// "a%20b" -> "a b"; nothing where a % has no two hex digits.
std::optional<std::string> unescaped(std::string_view text);

// The same of a path or a key: throws Error{usage} with the bare reason, for a NUL byte too.
std::string decoded_path(std::string_view text);

}  // namespace inrush
