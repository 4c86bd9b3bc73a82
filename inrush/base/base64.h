// Base64 of RFC 4648, with padding. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace inrush {

std::string base64(std::string_view bytes);

// Nothing for what is none.
std::optional<std::string> base64_decoded(std::string_view text);

}  // namespace inrush
