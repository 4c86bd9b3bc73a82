#include "inrush/wire/response.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "inrush/base/text.h"

namespace inrush {
namespace {

constexpr size_t kMostHeaders = 200;
constexpr size_t kLongestReason = 300;

const char* reason_phrase(int status) {
  constexpr std::array<std::pair<int, const char*>, 21> kPhrases{{
      {200, "OK"},
      {206, "Partial Content"},
      {301, "Moved Permanently"},
      {302, "Found"},
      {307, "Temporary Redirect"},
      {308, "Permanent Redirect"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {407, "Proxy Authentication Required"},
      {408, "Request Timeout"},
      {410, "Gone"},
      {412, "Precondition Failed"},
      {416, "Range Not Satisfiable"},
      {429, "Too Many Requests"},
      {500, "Internal Server Error"},
      {502, "Bad Gateway"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
  }};
  for (const auto& [code, phrase] : kPhrases) {
    if (code == status) return phrase;
  }
  return "";
}

// One line, printable, not endless.
std::string tidied(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < ' ' || byte >= 0x7f ? ' ' : c;
    if (out.size() == kLongestReason) return out + "...";
  }
  return std::string(trimmed(out));
}

// The value of "name": "..." in JSON, as far as an error's text is worth it.
std::string json_text(std::string_view json, std::string_view name) {
  const size_t at = json.find(fmt::format("\"{}\"", name));
  if (at == std::string_view::npos) return "";
  const size_t colon = json.find(':', at);
  const size_t open = colon == std::string_view::npos ? colon : json.find('"', colon);
  if (open == std::string_view::npos) return "";
  return std::string(json.substr(open + 1, json.find('"', open + 1) - open - 1));
}

std::string reason_in(std::string_view body, const ResponseHead& head) {
  // Hugging Face, and S3 for answers without a body, say it in headers.
  for (const char* name : {"x-error-message", "x-error-code", "x-ms-error-code"}) {
    if (const std::string text = head.header(name); !text.empty()) return text;
  }
  const std::string code = xml_text(body, "Code");
  if (!code.empty()) {
    const std::string message = xml_text(body, "Message");
    return message.empty() ? code : code + ": " + message;
  }
  for (const char* name : {"message", "error_description", "error"}) {
    if (std::string text = json_text(body, name); !text.empty()) return text;
  }
  const std::string type = head.header("content-type");
  return type.starts_with("text/plain") ? std::string(body) : "";
}

}  // namespace

std::optional<ContentRange> parse_content_range(std::string_view text) {
  if (!text.starts_with("bytes ")) return std::nullopt;
  text = trimmed(text.substr(6));
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  ContentRange range;
  const std::string_view size = text.substr(slash + 1);
  if (size != "*" && !(range.size = to_number(size))) return std::nullopt;
  const std::string_view bytes = text.substr(0, slash);
  if (bytes == "*") return range;
  const size_t dash = bytes.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto last = to_number(bytes.substr(dash + 1));
  range.first = to_number(bytes.substr(0, dash));
  if (!range.first || !last || *last < *range.first) return std::nullopt;
  range.last = *last;
  return range;
}

void ResponseHead::add_line(std::string_view line) {
  line = trimmed(line);
  if (line.starts_with("HTTP/")) {
    headers.clear();
    const size_t space = std::min(line.find(' '), line.size() - 1);
    status = static_cast<int>(to_number(line.substr(space + 1, 3)).value_or(0));
    return;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || headers.size() >= kMostHeaders) return;
  std::string& value = headers[lower(line.substr(0, colon))];
  const std::string_view text = trimmed(line.substr(colon + 1));
  // GCS has a line for each digest.
  const bool joins = !value.empty() && lower(line.substr(0, colon)) == "x-goog-hash";
  value = joins ? fmt::format("{},{}", value, text) : std::string(text);
}

std::string ResponseHead::header(const char* name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

std::string ResponseHead::request_id() const {
  for (const char* name : {"x-amz-request-id", "x-ms-request-id", "x-guploader-uploadid",
                           "x-request-id", "x-amz-cf-id", "cf-ray"}) {
    if (std::string id = header(name); !id.empty()) return id;
  }
  return "";
}

Identity ResponseHead::identity(uint64_t size) const {
  Identity identity;
  identity.size = size;
  const std::string etag = header("etag");
  identity.etag = etag.empty() ? header("last-modified") : etag;
  return identity;
}

std::optional<std::chrono::seconds> retry_after(const ResponseHead& head, int64_t now) {
  const std::string text = head.header("retry-after");
  if (text.empty()) return std::nullopt;
  if (const auto seconds = to_number(text)) {
    return std::chrono::seconds(std::min<uint64_t>(*seconds, 86400));
  }
  tm time{};
  if (::strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &time) == nullptr) return std::nullopt;
  return std::chrono::seconds(std::clamp<int64_t>(::timegm(&time) - now, 0, 86400));
}

std::string describe_refusal(const ResponseHead& head, std::string_view body) {
  std::string text = fmt::format("{} {}", head.status, reason_phrase(head.status));
  if (text.back() == ' ') text.pop_back();
  const std::string reason = tidied(reason_in(body, head));
  if (!reason.empty()) text += ": " + reason;
  std::string id = head.request_id();
  if (id.empty()) id = xml_text(body, "RequestId");
  return id.empty() ? text : fmt::format("{} (request id {})", text, tidied(id));
}

std::string xml_text(std::string_view xml, std::string_view name) {
  const std::string open = fmt::format("<{}>", name);
  const std::string close = fmt::format("</{}>", name);
  const size_t at = xml.find(open);
  if (at == std::string_view::npos) return "";
  const size_t end = xml.find(close, at);
  if (end == std::string_view::npos) return "";
  std::string_view raw = xml.substr(at + open.size(), end - at - open.size());
  if (raw.starts_with("<![CDATA[") && raw.ends_with("]]>")) {
    return std::string(raw.substr(9, raw.size() - 12));
  }
  constexpr std::array<std::pair<std::string_view, char>, 5> kEntities{
      {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}}};
  std::string text;
  while (!raw.empty()) {
    const auto entity = std::find_if(kEntities.begin(), kEntities.end(),
                                     [&](const auto& one) { return raw.starts_with(one.first); });
    text += entity == kEntities.end() ? raw.front() : entity->second;
    raw.remove_prefix(entity == kEntities.end() ? 1 : entity->first.size());
  }
  return text;
}

}  // namespace inrush
