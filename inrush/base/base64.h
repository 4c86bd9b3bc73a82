// Base64 of RFC 4648, with padding. Pure.
#pragma once

#include <string>
#include <string_view>

namespace inrush {

std::string base64(std::string_view bytes);

}  // namespace inrush
