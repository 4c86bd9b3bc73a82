#include "inrush/core/quoted.h"

#include <cstddef>
#include <cstdint>

namespace inrush {
namespace {

constexpr size_t kLongestShown = 160;  // bytes; the longest tensor names of the Hub are near 120

// Bytes of the well-formed UTF-8 sequence that begins here, or 0.
size_t sequence_length(std::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                                       : 4;
  if (length == 0 || first > 0xF4 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<uint8_t>(text[i]) & 0xC0) != 0x80) return 0;
  }
  return length;
}

void append_escaped(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  while (!text.empty()) {
    const auto byte = static_cast<uint8_t>(text[0]);
    const size_t length = sequence_length(text);
    // C0, DEL and, as UTF-8, the C1 controls (U+0080 to U+009F).
    const bool control = byte < 0x20 || byte == 0x7F ||
                         (length == 2 && byte == 0xC2 && static_cast<uint8_t>(text[1]) < 0xA0);
    if (length == 0 || control) {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
      text.remove_prefix(1);
      continue;
    }
    if (byte == '"' || byte == '\\') out += '\\';
    out += text.substr(0, length);
    text.remove_prefix(length);
  }
}

}  // namespace

std::string quoted(std::string_view name) {
  std::string out = "\"";
  if (name.size() <= kLongestShown) {
    append_escaped(out, name);
  } else {
    append_escaped(out, name.substr(0, kLongestShown / 2));
    out += "...";
    append_escaped(out, name.substr(name.size() - kLongestShown / 2));
  }
  out += '"';
  return out;
}

}  // namespace inrush
