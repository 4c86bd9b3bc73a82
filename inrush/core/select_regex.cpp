#include "inrush/core/select_regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr size_t kLongestPattern = 4096;
constexpr size_t kMostSteps = 20'000;  // after a{100} has become a hundred times a
constexpr int kDeepest = 100;          // parentheses
constexpr uint32_t kNoLimit = std::numeric_limits<uint32_t>::max();

using Op = Regex::Op;
using Bytes = Regex::Bytes;

// The pattern as a tree.
struct Node {
  enum Kind : uint8_t { bytes, assertion, sequence, choice, repeat };
  Kind kind = sequence;
  Bytes set;
  Op op = Op::begin;
  uint32_t least = 1;
  uint32_t most = 1;
  std::vector<Node> parts;
};

Node of_bytes(const Bytes& set) {
  Node node;
  node.kind = Node::bytes;
  node.set = set;
  return node;
}

Node of_assertion(Op op) {
  Node node;
  node.kind = Node::assertion;
  node.op = op;
  return node;
}

Bytes one(char c) { return Bytes().set(static_cast<unsigned char>(c)); }

Bytes between(char first, char last) {
  Bytes set;
  for (int c = static_cast<unsigned char>(first); c <= static_cast<unsigned char>(last); ++c) {
    set.set(static_cast<size_t>(c));
  }
  return set;
}

// The least byte of a set that is not empty.
char first_of(const Bytes& set) {
  int c = 0;
  while (!set.test(static_cast<size_t>(c))) ++c;
  return static_cast<char>(c);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

const Bytes& word_bytes() {
  static const Bytes set = between('a', 'z') | between('A', 'Z') | between('0', '9') | one('_');
  return set;
}

bool is_word(char c) { return word_bytes().test(static_cast<unsigned char>(c)); }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {
    if (text.size() > kLongestPattern) fail("longer than 4096 bytes");
  }

  Node parse() {
    Node node = choice(0);
    if (!at_end()) fail("a ')' too many");
    return node;
  }

 private:
  [[nodiscard]] bool at_end() const { return at_ == text_.size(); }
  [[nodiscard]] char peek() const { return at_end() ? '\0' : text_[at_]; }
  bool accept(std::string_view what) {
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }

  [[noreturn]] void fail(const std::string& why) const {
    throw Error(ErrorCode::usage, fmt::format("regular expression '{}', at byte {}: {}",
                                              text_.substr(0, 200), at_, why));
  }

  Node choice(int depth) {
    if (depth > kDeepest) fail("parentheses nest too deeply");
    Node node;
    node.kind = Node::choice;
    do {
      node.parts.push_back(sequence(depth));
    } while (accept("|"));
    return node;
  }

  Node sequence(int depth) {
    Node node;
    while (!at_end() && peek() != '|' && peek() != ')') {
      node.parts.push_back(repeated(atom(depth)));
    }
    return node;
  }

  Node atom(int depth) {
    if (accept("(")) return group(depth);
    if (accept("[")) return of_bytes(bracket());
    if (accept(".")) return of_bytes(~(one('\n') | one('\r')));
    if (accept("^")) return of_assertion(Op::begin);
    if (accept("$")) return of_assertion(Op::end);
    if (accept("\\b")) return of_assertion(Op::boundary);
    if (accept("\\B")) return of_assertion(Op::no_boundary);
    if (accept("\\")) return of_bytes(escape());
    if (peek() == '*' || peek() == '+' || peek() == '?') fail("nothing to repeat");
    return of_bytes(one(text_[at_++]));
  }

  Node group(int depth) {
    if (peek() == '?' && !accept("?:")) {
      fail("look-around and named groups are not part of this syntax: it never backtracks");
    }
    Node node = choice(depth + 1);
    if (!accept(")")) fail("a ')' is missing");
    return node;
  }

  Node repeated(Node node) {
    uint32_t least = 0;
    uint32_t most = kNoLimit;
    if (accept("+")) {
      least = 1;
    } else if (accept("?")) {
      most = 1;
    } else if (!accept("*") && !counts(least, most)) {
      return node;
    }
    accept("?");  // greedy or not, the answer is the same
    if (most < least) fail("the range of a repetition runs backwards");
    Node repeat;
    repeat.kind = Node::repeat;
    repeat.least = least;
    repeat.most = most;
    repeat.parts.push_back(std::move(node));
    return repeat;
  }

  // "{2}", "{2,}", "{2,5}"; anything else is a literal brace.
  bool counts(uint32_t& least, uint32_t& most) {
    const size_t start = at_;
    if (accept("{") && number(least)) {
      most = least;
      if (accept(",") && !number(most)) most = kNoLimit;
      if (accept("}")) return true;
    }
    at_ = start;
    least = 0;
    most = kNoLimit;
    return false;
  }

  bool number(uint32_t& value) {
    if (!is_digit(peek())) return false;
    value = 0;
    while (is_digit(peek())) {
      value = std::min<uint32_t>(value * 10 + static_cast<uint32_t>(peek() - '0'), 1'000'000);
      ++at_;
    }
    return true;
  }

  Bytes escape() {
    if (at_end()) fail("it ends with a backslash");
    const char c = text_[at_++];
    switch (c) {
      case 'd':
        return between('0', '9');
      case 'D':
        return ~between('0', '9');
      case 'w':
        return word_bytes();
      case 'W':
        return ~word_bytes();
      case 's':
        return one(' ') | between('\t', '\r');
      case 'S':
        return ~(one(' ') | between('\t', '\r'));
      case 't':
        return one('\t');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        return one('\0');
      case 'x':
        return one(hex(2));
      case 'u':
        return one(hex(4));
      default:
        break;
    }
    if (is_digit(c)) fail("back-references are not part of this syntax: it never backtracks");
    if (is_word(c)) fail(fmt::format("\\{} means nothing", c));
    return one(c);
  }

  char hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const char c = peek();
      const char lower = static_cast<char>(c | 0x20);
      if (!is_digit(c) && (lower < 'a' || lower > 'f')) fail("a hexadecimal digit is missing");
      value = value * 16 + static_cast<uint32_t>(is_digit(c) ? c - '0' : lower - 'a' + 10);
      ++at_;
    }
    if (value > 127) fail("an escape names ASCII only");
    return static_cast<char>(value);
  }

  Bytes bracket() {
    const bool negated = accept("^");
    Bytes set;
    while (!accept("]")) {
      const Bytes first = class_atom();
      if (first.count() != 1 || peek() != '-' || text_.substr(at_).starts_with("-]")) {
        set |= first;
        continue;
      }
      ++at_;
      const Bytes last = class_atom();
      if (last.count() != 1 || first_of(last) < first_of(first)) {
        fail("a range of a class runs backwards");
      }
      set |= between(first_of(first), first_of(last));
    }
    return negated ? ~set : set;
  }

  Bytes class_atom() {
    if (at_end()) fail("a ']' is missing");
    if (accept("\\b")) return one('\b');
    if (accept("\\")) return escape();
    const char c = text_[at_++];
    if (static_cast<unsigned char>(c) > 127) fail("a class names ASCII only");
    return one(c);
  }

  std::string_view text_;
  size_t at_ = 0;
};

// Lays a tree out as steps. Each piece is laid before what follows it, so it is given its successor
// first: emit() returns where the piece begins.
class Layer {
 public:
  Layer(std::vector<Regex::Step>& steps, std::vector<Bytes>& sets) : steps_(steps), sets_(sets) {}

  uint32_t emit(const Node& node, uint32_t next) {
    if (++visits_ > kMostSteps) refuse();  // a repeated nothing makes no steps
    switch (node.kind) {
      case Node::bytes:
        sets_.push_back(node.set);
        return step(Op::byte, next, last(sets_));
      case Node::assertion:
        return step(node.op, next);
      case Node::sequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = emit(node.parts[i], next);
        return next;
      case Node::choice: {
        uint32_t start = emit(node.parts.back(), next);
        for (size_t i = node.parts.size() - 1; i-- > 0;) {
          start = step(Op::fork, emit(node.parts[i], next), start);
        }
        return start;
      }
      case Node::repeat:
        return emit_repeat(node, next);
    }
    return next;
  }

  uint32_t step(Op op, uint32_t next = 0, uint32_t other = 0) {
    if (steps_.size() >= kMostSteps) refuse();
    steps_.push_back({op, next, other});
    return last(steps_);
  }

 private:
  template <typename List>
  static uint32_t last(const List& list) {
    return static_cast<uint32_t>(list.size() - 1);
  }

  [[noreturn]] static void refuse() {
    throw Error(ErrorCode::usage, "regular expression: its repetitions make it too large");
  }

  uint32_t emit_repeat(const Node& node, uint32_t next) {
    const Node& part = node.parts[0];
    uint32_t start = next;
    if (node.most == kNoLimit) {
      start = step(Op::fork, 0, next);
      const uint32_t body = emit(part, start);
      steps_[start].next = body;
    } else {
      for (uint32_t i = node.least; i < node.most; ++i) {
        start = step(Op::fork, emit(part, start), next);
      }
    }
    for (uint32_t i = 0; i < node.least; ++i) start = emit(part, start);
    return start;
  }

  std::vector<Regex::Step>& steps_;
  std::vector<Bytes>& sets_;
  size_t visits_ = 0;
};

// The steps that are alive at one position of the text, each once.
class Alive {
 public:
  Alive(const std::vector<Regex::Step>& steps, std::string_view text)
      : steps_(steps), text_(text), seen_(steps.size(), 0) {}

  // Follows everything that takes no byte. Returns whether that reached the end of the pattern.
  bool add(uint32_t start, size_t at) {
    pending_.assign(1, start);
    while (!pending_.empty()) {
      const uint32_t i = pending_.back();
      pending_.pop_back();
      if (seen_[i] == at + 1) continue;
      seen_[i] = at + 1;
      const Regex::Step& step = steps_[i];
      if (step.op == Op::match) return true;
      if (step.op == Op::byte) {
        bytes_.push_back(i);
        continue;
      }
      if (step.op == Op::fork) pending_.push_back(step.other);
      if (step.op == Op::fork || holds(step.op, at)) pending_.push_back(step.next);
    }
    return false;
  }

  void take(std::vector<uint32_t>& out) {
    out.swap(bytes_);
    bytes_.clear();
  }

 private:
  [[nodiscard]] bool holds(Op op, size_t at) const {
    if (op == Op::begin) return at == 0;
    if (op == Op::end) return at == text_.size();
    const bool before = at > 0 && is_word(text_[at - 1]);
    const bool after = at < text_.size() && is_word(text_[at]);
    return (before != after) == (op == Op::boundary);
  }

  const std::vector<Regex::Step>& steps_;
  std::string_view text_;
  std::vector<size_t> seen_;  // the last position at which a step was added, plus 1
  std::vector<uint32_t> pending_;
  std::vector<uint32_t> bytes_;
};

}  // namespace

// The steps end with the first one.
Regex::Regex(std::string_view pattern) {
  const Node root = Parser(pattern).parse();
  Layer layer(steps_, sets_);
  const uint32_t match = layer.step(Op::match);
  const uint32_t start = layer.emit(root, match);
  layer.step(Op::fork, start, start);
}

bool Regex::found_in(std::string_view text) const {
  const auto start = static_cast<uint32_t>(steps_.size() - 1);
  Alive alive(steps_, text);
  std::vector<uint32_t> now;
  for (size_t at = 0; at <= text.size(); ++at) {
    if (alive.add(start, at)) return true;
    if (at == text.size()) break;
    alive.take(now);
    for (const uint32_t i : now) {
      const Step& step = steps_[i];
      if (!sets_[step.other].test(static_cast<unsigned char>(text[at]))) continue;
      if (alive.add(step.next, at + 1)) return true;
    }
  }
  return false;
}

}  // namespace inrush
