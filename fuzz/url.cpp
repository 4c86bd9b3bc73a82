// URLs that users type and servers redirect to. The input is a URL, NUL, a Location header.
#include "inrush/wire/url.h"

#include "fuzz/memory_store.h"
#include "inrush/wire/redis.h"

namespace {

using namespace inrush;
using namespace inrush::fuzz;

void check(const Url& url) {
  require(!url.host.empty() && url.path.starts_with('/'), "there is a host, and a path");
  const std::string text = url.text();
  require(text.find_first_of(" \r\n\t") == std::string::npos, "no line break goes on the wire");
  const Url again = parse_url(text);
  require(again.text() == text && again.origin() == url.origin(), "it comes back");
  require(again.user.empty(), "what is asked for names no user");
  const std::string shown = shown_url(url);
  require(shown.starts_with(url.origin()), "it is shown by its host");
  require(url.query.empty() || shown.ends_with("?..."), "a query is not shown");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = text_of(data, size);
  const std::string_view first = text.substr(0, text.find('\0'));
  const std::string_view second = text.substr(std::min(first.size() + 1, text.size()));
  try {
    const Url url = parse_url(first);
    check(url);
    is_link_local(url.host);
    check(resolve_url(url, second));
  } catch (const Error& error) {
    require(error.code() == ErrorCode::usage, "the caller's fault");
  }
  try {
    require(percent_decoded(percent_encoded(second, false)) == second, "an escape comes back");
    percent_decoded(second);
  } catch (const Error& error) {
    require(error.code() == ErrorCode::usage, "the caller's fault");
  }
  try {
    parse_redis_uri(std::string(first));
  } catch (const Error& error) {
    require(error.code() == ErrorCode::usage, "the caller's fault");
  }
  return 0;
}
