// The head of an HTTP response, line by line, and what is to be thought of it. Pure; one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "inrush/core/blob.h"

namespace inrush {

// "bytes 8-15/100"; size is missing for "bytes 8-15/*", first and last for "bytes */100".
struct ContentRange {
  std::optional<uint64_t> first;
  uint64_t last = 0;
  std::optional<uint64_t> size;
};

std::optional<ContentRange> parse_content_range(std::string_view text);

struct ResponseHead {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case; of repeated ones the last

  // Takes one line as it came. A status line begins anew: what is before it was an interim
  // response, or a proxy's.
  void add_line(std::string_view line);

  // Empty where there is none.
  [[nodiscard]] std::string header(const char* name) const;

  // The server's own number of this request, for its support: of S3, GCS, Azure, CDNs.
  [[nodiscard]] std::string request_id() const;

  // What tells this content from another of the same name: size, and ETag or else Last-Modified.
  [[nodiscard]] Identity identity(uint64_t size) const;
};

// Seconds that the server asks to be left alone, from a number or a date; nothing if it does not.
std::optional<std::chrono::seconds> retry_after(const ResponseHead& head, int64_t now);

// "403 Forbidden: AccessDenied: Access Denied (request id X)", with what the body, XML or JSON or
// text, says of it; control characters taken out, and no longer than a line.
std::string describe_refusal(const ResponseHead& head, std::string_view body);

// The text between <name> and </name>, entities resolved; empty where there is none.
std::string xml_text(std::string_view xml, std::string_view name);

}  // namespace inrush
