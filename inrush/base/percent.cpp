#include "inrush/base/percent.h"

#include <utility>

#include "inrush/core/error.h"

namespace inrush {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::optional<std::string> unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    if (low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

std::string decoded_path(std::string_view text) {
  std::optional<std::string> path = unescaped(text);
  if (!path) throw Error(ErrorCode::usage, "% without two hex digits");
  if (path->find('\0') != std::string::npos) {
    throw Error(ErrorCode::usage, "a NUL byte in a path");
  }
  return std::move(*path);
}

}  // namespace inrush
