// URLs in parts, and how they appear where people read them: never with what is secret in them.
// Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace inrush {

struct Url {
  std::string scheme;  // lower case
  std::string user;    // "name:password" as written, or empty
  std::string host;    // lower case; an IPv6 address in its brackets
  std::string port;    // as written, or empty
  std::string path;    // with its slash; "/" where there is none
  std::string query;   // without its question mark

  // "https://host:8443", without user and default port.
  [[nodiscard]] std::string origin() const;
  // The whole, to be asked for; without user and fragment.
  [[nodiscard]] std::string text() const;
};

// Throws Error{usage}, which does not repeat what may be secret.
Url parse_url(std::string_view text);

// As errors, logs and names of blobs have it: no user, and "?..." for a query.
std::string shown_url(const Url& url);

// What a Location header names, seen from `base`. Throws Error{usage}.
Url resolve_url(const Url& base, std::string_view location);

// A query without what signs it or lets it expire, which is another one each time.
std::string unsigned_query(std::string_view query);

// Whether the host is written as an address that only this link reaches: 169.254.0.0/16, fe80::/10.
bool is_link_local(std::string_view host);

// Percent-encoding of all but unreserved characters; slashes stay where asked.
std::string percent_encoded(std::string_view text, bool keep_slashes);

// Throws Error{usage} for a % without two hex digits.
std::string percent_decoded(std::string_view text);

}  // namespace inrush
