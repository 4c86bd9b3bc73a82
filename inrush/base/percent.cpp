#include "inrush/base/percent.h"

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

std::string decoded_path(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    if (text[i] == '%' && low < 0) {
      throw Error(ErrorCode::usage, "% without two hex digits");
    }
    out += low < 0 ? text[i] : static_cast<char>(high * 16 + low);
    if (low >= 0) i += 2;
  }
  if (out.find('\0') != std::string::npos) {
    throw Error(ErrorCode::usage, "a NUL byte in a path");
  }
  return out;
}

}  // namespace inrush
