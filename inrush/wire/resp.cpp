#include "inrush/wire/resp.h"

#include <fmt/format.h>

#include <charconv>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush::resp {
namespace {

constexpr std::string_view kEnd = "\r\n";
constexpr int64_t kLargestBulk = 512LL << 20;  // Redis's own limit of a value
constexpr int64_t kLargestArray = 1LL << 26;
constexpr int kDeepest = 8;

[[noreturn]] void refuse(const std::string& why) {
  throw Error(ErrorCode::source, "no Redis answers there: " + why);
}

std::optional<Reply> take(std::string_view& bytes, int depth) {
  if (depth > kDeepest) refuse("a reply is nested too deeply");
  std::string_view rest = bytes;
  std::optional<Head> head = parse_head(rest);
  if (!head) return std::nullopt;
  rest.remove_prefix(head->size);
  Reply reply{head->kind, head->number, std::move(head->text), {}};
  if (head->kind == Kind::bulk) {
    const auto size = static_cast<size_t>(head->number);
    if (rest.size() < size + kEnd.size()) return std::nullopt;
    if (rest.substr(size, kEnd.size()) != kEnd) refuse("a value does not end where it should");
    reply.text = rest.substr(0, size);
    rest.remove_prefix(size + kEnd.size());
  }
  for (int64_t i = 0; head->kind == Kind::array && i < head->number; ++i) {
    std::optional<Reply> element = take(rest, depth + 1);
    if (!element) return std::nullopt;
    reply.elements.push_back(std::move(*element));
  }
  bytes = rest;
  return reply;
}

}  // namespace

void append(std::string& out, const Words& words) {
  out += fmt::format("*{}\r\n", words.size());
  for (const std::string_view word : words) {
    out += fmt::format("${}\r\n", word.size());
    out += word;
    out += kEnd;
  }
}

std::optional<Head> parse_head(std::string_view bytes) {
  if (bytes.empty()) return std::nullopt;
  const size_t end = bytes.find(kEnd);
  if (end == std::string_view::npos) {
    if (bytes.size() > kLongestLine) refuse("a line without an end");
    return std::nullopt;
  }
  const std::string_view line = bytes.substr(1, end - 1);
  Head head;
  head.size = end + kEnd.size();
  switch (bytes.front()) {
    case '+':
      head.kind = Kind::text;
      head.text = line;
      return head;
    case '-':
      head.kind = Kind::error;
      head.text = line;
      return head;
    case ':':
      head.kind = Kind::integer;
      break;
    case '$':
      head.kind = Kind::bulk;
      break;
    case '*':
      head.kind = Kind::array;
      break;
    default:
      refuse(fmt::format("it says {}", quoted(bytes.substr(0, std::min<size_t>(end, 40)))));
  }
  const auto [stop, code] = std::from_chars(line.data(), line.data() + line.size(), head.number);
  const int64_t most = head.kind == Kind::bulk    ? kLargestBulk
                       : head.kind == Kind::array ? kLargestArray
                                                  : INT64_MAX;
  const int64_t least = head.kind == Kind::integer ? INT64_MIN : -1;
  if (code != std::errc{} || stop != line.data() + line.size() || head.number < least ||
      head.number > most) {
    refuse(fmt::format("a length of {}", quoted(line.substr(0, 40))));
  }
  if (head.kind != Kind::integer && head.number < 0) head.kind = Kind::nothing;
  return head;
}

std::optional<Reply> take_reply(std::string_view& bytes) { return take(bytes, 0); }

}  // namespace inrush::resp
