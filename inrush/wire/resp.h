// Redis's protocol, RESP 2, as bytes: a command is an array of bulk strings; a reply is a line that
// says what it is, and for a bulk string its bytes and CRLF. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inrush::resp {

using Words = std::vector<std::string_view>;

// Appends a command, ready to be sent.
void append(std::string& out, const Words& words);

enum class Kind : uint8_t { text, error, integer, bulk, nothing, array };

// The first line of a reply.
struct Head {
  Kind kind = Kind::nothing;
  int64_t number = 0;  // the integer; bytes of a bulk string; elements of an array
  std::string text{};  // of a text or an error
  size_t size = 0;     // bytes of the line, CRLF included
};

// Longest line of a reply; a server that sends more is no Redis.
constexpr size_t kLongestLine = 64UL << 10;

// Nothing while the line is not whole. Throws Error{source} with the bare reason.
std::optional<Head> parse_head(std::string_view bytes);

// A whole reply.
struct Reply {
  Kind kind = Kind::nothing;
  int64_t number = 0;
  std::string text{};  // of a text, an error, a bulk string
  std::vector<Reply> elements{};
};

// Takes one reply off the front of `bytes` (which shrinks by it); nothing while it is not whole.
// Throws Error{source} with the bare reason.
std::optional<Reply> take_reply(std::string_view& bytes);

}  // namespace inrush::resp
