#include "inrush/wire/redis.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <iterator>
#include <utility>

#include "inrush/base/environment.h"
#include "inrush/base/percent.h"
#include "inrush/base/text.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

constexpr std::string_view kPlain = "redis://";
constexpr std::string_view kSecure = "rediss://";
constexpr uint16_t kPort = 6379;

// The part before `mark`, taken off the front of `text`; nothing is taken where there is no mark.
std::string_view take_before(std::string_view& text, char mark) {
  const size_t at = text.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view before = text.substr(0, at);
  text.remove_prefix(at + 1);
  return before;
}

template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  return code == std::errc{} && end == text.data() + text.size();
}

// Parses; what it refuses is named by the address, which has no password in it.
class UriParser {
 public:
  RedisPlace parse(const std::string& uri) {
    std::string_view rest = uri;
    const size_t slashes = rest.find("//");
    const std::string scheme =
        lower(rest.substr(0, slashes == std::string_view::npos ? 0 : slashes + 2));
    place_.endpoint.tls = scheme == kSecure;
    if (scheme != kSecure && scheme != kPlain) refuse("no address of a Redis server");
    rest.remove_prefix(scheme.size());
    std::string_view query;
    if (const size_t mark = rest.find('?'); mark != std::string_view::npos) {
      query = rest.substr(mark + 1);
      rest = rest.substr(0, mark);
    }
    const size_t slash = std::min(rest.find('/'), rest.size());
    authority(rest.substr(0, slash));
    place_.key = decoded(rest.substr(std::min(slash + 1, rest.size())));
    while (!query.empty()) {
      std::string_view word = take_before(query, '&');
      if (word.empty()) word = std::exchange(query, {});
      option(word);
    }
    if (place_.password.empty()) place_.password = read_environment().redis_password;
    return std::move(place_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: {}; expected "
                            "redis://[:password@]host[:port]/key[?db=N]",
                            place_.shown.empty() ? "redis://" : place_.shown, why));
  }

  [[nodiscard]] std::string decoded(std::string_view text) const {
    try {
      return decoded_path(text);
    } catch (const Error& error) {
      refuse(error.message());
    }
  }

  void authority(std::string_view text) {
    const size_t at = text.rfind('@');
    const std::string_view login = at == std::string_view::npos ? "" : text.substr(0, at);
    if (at != std::string_view::npos) text.remove_prefix(at + 1);
    std::string_view host = text;
    std::string_view port;
    const size_t bracket = text.starts_with('[') ? text.find(']') : 0;
    if (bracket == std::string_view::npos) refuse("an address without its bracket");
    const size_t colon = text.find(':', bracket);
    if (colon != std::string_view::npos) {
      host = text.substr(0, colon);
      port = text.substr(colon + 1);
    }
    place_.shown = fmt::format("{}{}", place_.endpoint.tls ? kSecure : kPlain, text);
    place_.endpoint.port = kPort;
    if (!port.empty() && !parse_number(port, place_.endpoint.port)) refuse("no port of that name");
    if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
    place_.endpoint.host = host.empty() ? "localhost" : decoded(host);
    const size_t split = std::min(login.find(':'), login.size());
    place_.user = decoded(login.substr(0, split));
    if (split < login.size()) place_.password = decoded(login.substr(split + 1));
  }

  void option(std::string_view word) {
    const std::string_view name = word.substr(0, word.find('='));
    const std::string_view value = word.substr(std::min(name.size() + 1, word.size()));
    if (name == "db") {
      if (!parse_number(value, place_.database)) refuse("db is no number");
    } else if (name == "ssl_ca_certs") {
      place_.endpoint.ca_file = decoded(value);
    } else {
      refuse(fmt::format("option {} is not known", quoted(name)));
    }
  }

  RedisPlace place_;
};

}  // namespace

RedisPlace parse_redis_uri(const std::string& uri) { return UriParser().parse(uri); }

const RedisFile& redis_file(const Blob& blob) {
  return *static_cast<const RedisFile*>(blob.handle.get());
}

std::string redis_pattern(std::string_view key) {
  std::string out;
  for (const char c : key) {
    if (std::strchr("*?[]\\^-", c) != nullptr) out += '\\';
    out += c;
  }
  return out;
}

std::optional<uint64_t> redis_offset(std::string_view key) {
  const std::string_view digits = key.substr(key.rfind(':') + 1);
  uint64_t offset = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), offset);
  const bool whole = code == std::errc{} && end == digits.data() + digits.size();
  return whole ? std::optional(offset) : std::nullopt;
}

std::vector<RedisPart> parts_of(const RedisFile& file, uint64_t offset, uint64_t size) {
  std::vector<RedisPart> parts;
  const auto after = std::upper_bound(
      file.segments.begin(), file.segments.end(), offset,
      [](uint64_t at, const RedisSegment& segment) { return at < segment.offset; });
  for (auto segment = std::prev(after); size > 0 && segment != file.segments.end(); ++segment) {
    const uint64_t begin = offset - segment->offset;
    const uint64_t here = std::min(size, segment->size - begin);
    if (here > 0) parts.push_back({&*segment, begin, here});
    offset += here;
    size -= here;
  }
  return parts;
}

void append_get(std::string& out, const RedisPart& part) {
  const std::string first = std::to_string(part.begin);
  const std::string last = std::to_string(part.begin + part.size - 1);
  resp::append(out, {"GETRANGE", part.segment->key, first, last});
}

Error redis_error(const std::string& what, const resp::Reply& reply) {
  const std::string text = reply.kind == resp::Kind::error ? reply.text : "an answer without sense";
  return {ErrorCode::source, fmt::format("{}: {}", what, text)};
}

std::string seconds_text(std::chrono::milliseconds time) {
  return fmt::format("{:g} s", static_cast<double>(time.count()) / 1000);
}

RedisConnection::RedisConnection(const RedisPlace& place, const std::string& what)
    : what_(what),
      patience_(place.patience),
      stream_(Stream::connect(place.endpoint, what, Clock::now() + place.connecting)) {
  log_in(place);
}

void RedisConnection::log_in(const RedisPlace& place) {
  std::string commands;
  size_t count = 0;
  if (!place.password.empty()) {
    resp::Words words{"AUTH", place.user, place.password};
    if (place.user.empty()) words.erase(words.begin() + 1);
    resp::append(commands, words);
    ++count;
  }
  const std::string database = std::to_string(place.database);
  resp::append(commands,
               place.database == 0 ? resp::Words{"PING"} : resp::Words{"SELECT", database});
  const auto replies = ask(commands, count + 1);
  if (count == 1 && replies[0].kind == resp::Kind::error) {
    // Its first word only: some servers repeat what they were sent.
    const std::string& text = replies[0].text;
    throw Error(ErrorCode::source, fmt::format("{}: the server refuses the password: {}", what_,
                                               text.substr(0, text.find(' '))));
  }
  if (replies.back().kind == resp::Kind::error) throw redis_error(what_, replies.back());
}

std::vector<resp::Reply> RedisConnection::ask(std::string_view commands, size_t count) {
  std::vector<resp::Reply> replies;
  std::span<const std::byte> sending = std::as_bytes(std::span(commands));
  std::array<std::byte, 64UL << 10> buffer;
  try {
    Deadline deadline = Clock::now() + patience_;
    while (take_replies(replies, count), replies.size() < count) {
      const size_t sent = sending.empty() ? 0 : stream_.write(sending);
      sending = sending.subspan(sent);
      const size_t got = stream_.read(buffer);
      received_.append(reinterpret_cast<const char*>(buffer.data()), got);
      if (sent > 0 || got > 0) {
        deadline = Clock::now() + patience_;
        continue;
      }
      const auto events = static_cast<short>(POLLIN | (sending.empty() ? 0 : POLLOUT));
      if (!wait_for(stream_.fd(), events, -1, deadline)) {
        throw Error(ErrorCode::source, "no answer for " + seconds_text(patience_));
      }
    }
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", what_, error.message()));
  }
  return replies;
}

// Out of what was received, until there are `count`.
void RedisConnection::take_replies(std::vector<resp::Reply>& replies, size_t count) {
  std::string_view rest = received_;
  while (replies.size() < count) {
    std::optional<resp::Reply> reply = resp::take_reply(rest);
    if (!reply) break;
    replies.push_back(std::move(*reply));
  }
  received_.erase(0, received_.size() - rest.size());
}

resp::Reply RedisConnection::ask(const resp::Words& words) {
  std::string command;
  resp::append(command, words);
  resp::Reply reply = std::move(ask(command, 1).front());
  if (reply.kind == resp::Kind::error) throw redis_error(what_, reply);
  return reply;
}

}  // namespace inrush
