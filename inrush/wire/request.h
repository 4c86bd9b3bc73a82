// A request as it will be sent, and who puts his name to it. Values; signers are for any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "inrush/wire/url.h"

namespace inrush {

struct HttpRequest {
  std::string method = "GET";
  Url url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string_view body;  // of PUT and POST; borrowed from the caller
};

class Signer {
 public:
  virtual ~Signer() = default;

  // Adds what shows who asks, as of now: called for each try. Throws Error{source} without
  // credentials.
  virtual void sign(HttpRequest& request) const = 0;

  // Whether another host than the store's own is the same sender's business: of a redirect.
  [[nodiscard]] virtual bool trusts(const Url& /*other*/) const { return false; }
};

}  // namespace inrush
