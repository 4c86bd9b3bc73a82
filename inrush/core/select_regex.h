// A regular expression in the syntax of ECMAScript, matched in time proportional to the text and
// in constant stack: names come from files that may be hostile, and std::regex recurses once a
// character and can take exponential time. What this costs: no back-references, no look-around.
// Matches bytes; a class or an escape names ASCII only. A value; any thread.
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

namespace inrush {

class Regex {
 public:
  // Throws Error{usage} that says what is wrong and where, or that the pattern is too large.
  explicit Regex(std::string_view pattern);

  // Whether some part of the text matches.
  [[nodiscard]] bool found_in(std::string_view text) const;

  using Bytes = std::bitset<256>;
  enum class Op : uint8_t { byte, fork, begin, end, boundary, no_boundary, match };
  struct Step {
    Op op = Op::match;
    uint32_t next = 0;
    uint32_t other = 0;  // of a fork; of a byte: index into sets_
  };

 private:
  std::vector<Step> steps_;
  std::vector<Bytes> sets_;
};

}  // namespace inrush
