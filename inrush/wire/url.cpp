#include "inrush/wire/url.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <utility>
#include <vector>

#include "inrush/base/percent.h"
#include "inrush/base/text.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr size_t kLongest = 64 << 10;  // bytes of a URL; presigned ones have some 2 KiB

bool is_default_port(const Url& url) {
  return url.port.empty() || (url.scheme == "http" && url.port == "80") ||
         (url.scheme == "https" && url.port == "443");
}

[[noreturn]] void refuse(const char* why) {
  throw Error(ErrorCode::usage, fmt::format("a URL {}", why));
}

// "host:port", "[::1]:port"
void split_host(std::string_view text, Url& url) {
  const size_t bracket = text.rfind(']');
  const size_t colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  url.host = lower(text.substr(0, colon));
  if (colon != std::string_view::npos) url.port = text.substr(colon + 1);
  const bool digits = std::all_of(url.port.begin(), url.port.end(),
                                  [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!digits || url.port.size() > 5) refuse("has a port that is no number");
  if (url.host.empty()) refuse("has no host");
}

// "/a/b/../c" -> "/a/c", as RFC 3986 removes dots.
std::string without_dots(std::string_view path) {
  std::vector<std::string_view> parts;
  bool folder = false;
  for (size_t at = 1; at <= path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, slash - at);
    folder = part == "." || part == "..";
    if (part == ".." && !parts.empty()) parts.pop_back();
    if (!folder) parts.push_back(part);
    at = slash + 1;
  }
  std::string out;
  for (const std::string_view part : parts) out.append("/").append(part);
  return folder || out.empty() ? out + "/" : out;
}

}  // namespace

std::string Url::origin() const {
  return scheme + "://" + host + (is_default_port(*this) ? "" : ":" + port);
}

std::string Url::text() const { return origin() + path + (query.empty() ? "" : "?" + query); }

Url parse_url(std::string_view text) {
  if (text.size() > kLongest) refuse("is longer than 64 KiB");
  // A line break would begin another header.
  const bool clean =
      std::none_of(text.begin(), text.end(), [](unsigned char c) { return c <= ' ' || c == 0x7f; });
  if (!clean) refuse("has spaces or control characters in it: encode them as %20 and so on");
  Url url;
  const size_t colon = text.find("://");
  if (colon == std::string_view::npos || colon == 0) refuse("has no scheme");
  url.scheme = lower(text.substr(0, colon));
  text.remove_prefix(colon + 3);
  text = text.substr(0, text.find('#'));
  std::string_view authority = text.substr(0, text.find_first_of("/?"));
  text.remove_prefix(authority.size());
  if (const size_t at = authority.rfind('@'); at != std::string_view::npos) {
    url.user = authority.substr(0, at);
    authority.remove_prefix(at + 1);
  }
  split_host(authority, url);
  const size_t question = text.find('?');
  url.path = text.substr(0, question);
  if (url.path.empty()) url.path = "/";
  if (question != std::string_view::npos) url.query = text.substr(question + 1);
  return url;
}

std::string shown_url(const Url& url) {
  return url.origin() + url.path + (url.query.empty() ? "" : "?...");
}

Url resolve_url(const Url& base, std::string_view location) {
  const size_t colon = location.find(':');
  if (colon != std::string_view::npos && colon < location.find_first_of("/?#")) {
    return parse_url(location);
  }
  if (location.starts_with("//")) return parse_url(base.scheme + ":" + std::string(location));
  if (location.starts_with("/")) return parse_url(base.origin() + std::string(location));
  if (location.starts_with("?"))
    return parse_url(base.origin() + base.path + std::string(location));
  const std::string folder = base.path.substr(0, base.path.rfind('/') + 1);
  Url url = parse_url(base.origin() + folder + std::string(location));
  url.path = without_dots(url.path);
  return url;
}

std::string unsigned_query(std::string_view query) {
  // Of AWS, Google, CloudFront and Azure; what they mean elsewhere is not known.
  constexpr std::array kSignatures{"sig", "signature", "x-amz-signature", "x-goog-signature"};
  constexpr std::array kWithThem{"awsaccesskeyid",
                                 "expires",
                                 "googleaccessid",
                                 "key-pair-id",
                                 "policy",
                                 "se",
                                 "sip",
                                 "ske",
                                 "skoid",
                                 "sks",
                                 "skt",
                                 "sktid",
                                 "skv",
                                 "sp",
                                 "spr",
                                 "sr",
                                 "srt",
                                 "ss",
                                 "st",
                                 "sv"};
  bool is_signed = false;
  std::string rest;
  const std::string whole(query);
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view word = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const std::string name = lower(word.substr(0, word.find('=')));
    const auto is_name = [&](const char* one) { return name == one; };
    is_signed |= std::any_of(kSignatures.begin(), kSignatures.end(), is_name);
    const bool signs = name.starts_with("x-amz-") || name.starts_with("x-goog-") ||
                       std::any_of(kSignatures.begin(), kSignatures.end(), is_name) ||
                       std::any_of(kWithThem.begin(), kWithThem.end(), is_name);
    if (signs || word.empty()) continue;
    rest.append(rest.empty() ? "" : "&").append(word);
  }
  return is_signed ? rest : whole;
}

bool is_link_local(std::string_view host) {
  std::string address(host);
  if (address.starts_with("[") && address.ends_with("]")) {
    address = address.substr(1, address.size() - 2);
    address = address.substr(0, address.find('%'));
  }
  std::array<unsigned char, 16> bytes{};
  if (::inet_pton(AF_INET6, address.c_str(), bytes.data()) == 1) {
    const bool mapped =
        std::all_of(bytes.begin(), bytes.begin() + 10, [](auto b) { return b == 0; });
    return (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80) ||
           (mapped && bytes[10] == 0xff && bytes[12] == 169 && bytes[13] == 254);
  }
  // inet_aton also knows the forms that resolvers know: 0xa9fe0001, 169.254.1.
  in_addr four{};
  return ::inet_aton(address.c_str(), &four) != 0 && (ntohl(four.s_addr) >> 16) == 0xa9fe;
}

std::string percent_encoded(std::string_view text, bool keep_slashes) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", byte);
    }
  }
  return out;
}

std::string percent_decoded(std::string_view text) {
  std::optional<std::string> plain = unescaped(text);
  if (!plain) refuse("has a % without two hex digits");
  return std::move(*plain);
}

}  // namespace inrush
