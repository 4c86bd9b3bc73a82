#include "inrush/net/transfer.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>

#include "inrush/base/percent.h"
#include "inrush/base/text.h"

namespace inrush {
namespace {

constexpr uint64_t kLongestRefusal = 16 << 10;  // bytes kept of an error's body

bool is_date(const std::string& text) { return text.ends_with(" GMT"); }

// Failures on the way that may be gone at the next try.
bool may_pass(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return false;
  }
}

// Of these, what was so from the first try on mostly stays so.
bool rarely_passes(CURLcode code) {
  return code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY ||
         code == CURLE_COULDNT_CONNECT || code == CURLE_SSL_CONNECT_ERROR;
}

bool may_pass(int status) {
  return status == 408 || status == 425 || status == 429 || status == 500 || status == 502 ||
         status == 503 || status == 504 || status == 509 || (status >= 520 && status <= 524);
}

// What libcurl says of a proxy may name it with its user and password.
std::string without_users(std::string text) {
  for (size_t at = text.find('@'); at != std::string::npos; at = text.find('@')) {
    const size_t before = text.find_last_of(" \"'/", at);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    text.erase(begin, at + 1 - begin);
  }
  return text;
}

void replace_all(std::string& text, const std::string& what) {
  constexpr std::string_view kInstead = "...";
  for (size_t at = text.find(what); at != std::string::npos;
       at = text.find(what, at + kInstead.size())) {
    text.replace(at, what.size(), kInstead);
  }
}

// Headers, and words of queries, whose values are no secret.
bool is_plain(const std::string& name) {
  constexpr std::array kPlain{"accept-encoding",
                              "content-type",
                              "expect",
                              "if-match",
                              "if-unmodified-since",
                              "range",
                              "x-amz-date",
                              "x-amz-checksum-mode",
                              "x-amz-request-payer",
                              "x-ms-blob-type",
                              "x-ms-version",
                              "x-amz-content-sha256",
                              "blockid",
                              "comp",
                              "delimiter",
                              "continuation-token",
                              "encoding-type",
                              "generation",
                              "list-type",
                              "marker",
                              "partnumber",
                              "prefix",
                              "restype",
                              "uploadid",
                              "versionid"};
  return std::find(kPlain.begin(), kPlain.end(), name) != kPlain.end();
}

// Of a query and of headers, longest first: a part may stand in another one.
std::vector<std::string> secrets_of(std::string_view query, const curl_slist* headers) {
  constexpr size_t kShort = 6;  // what is shorter stands in any text
  std::vector<std::string> secrets;
  const auto add = [&](std::string_view text) {
    if (text.size() >= kShort) secrets.emplace_back(text);
  };
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const size_t equals = std::min(query.find('='), end);
    const std::string_view value = query.substr(0, end).substr(std::min(equals + 1, end));
    if (!is_plain(lower(query.substr(0, equals)))) {
      add(value);
      if (const auto plain = unescaped(value)) add(*plain);
    }
    query.remove_prefix(std::min(end + 1, query.size()));
  }
  for (; headers != nullptr; headers = headers->next) {
    const std::string_view line = headers->data;
    const size_t colon = std::min(line.find(':'), line.size());
    if (is_plain(lower(line.substr(0, colon)))) continue;
    const std::string_view value = trimmed(line.substr(std::min(colon + 1, line.size())));
    add(value);
    add(value.substr(std::min(value.find(' '), value.size() - 1) + 1));  // "Bearer ..."
  }
  std::sort(secrets.begin(), secrets.end(),
            [](const auto& one, const auto& other) { return one.size() > other.size(); });
  return secrets;
}

// The same content, as far as both sides tell.
bool same_content(const Identity& known, const ResponseHead& head) {
  if (known.etag.empty()) return true;
  const std::string etag = head.header("etag");
  const std::string date = head.header("last-modified");
  if (is_date(known.etag)) return date.empty() || date == known.etag;
  return etag.empty() || etag == known.etag;
}

}  // namespace

std::string why_not_follow(const Url& from, const Url& to) {
  if (to.scheme != "http" && to.scheme != "https") {
    return fmt::format("a redirect to {}://, which is not followed", to.scheme);
  }
  if (from.scheme == "https" && to.scheme == "http") {
    return fmt::format("a redirect from https to http ({}), which is not followed", to.origin());
  }
  if (is_link_local(to.host) && to.host != from.host) {
    return fmt::format("a redirect to the link-local host {}, which is not followed", to.host);
  }
  return "";
}

Transfer::Transfer(EasyHandle easy) : curl_(load_curl()), easy_(std::move(easy)) {}

Transfer::~Transfer() {
  if (headers_ != nullptr) curl_.slist_free_all(headers_);
}

EasyHandle Transfer::release() {
  curl_.easy_setopt(easy_.get(), CURLOPT_HTTPHEADER, nullptr);
  curl_.easy_setopt(easy_.get(), CURLOPT_ERRORBUFFER, nullptr);
  return std::move(easy_);
}

void Transfer::prepare_range(const HttpRequest& request, const Wanted& wanted, std::byte* target) {
  wanted_ = wanted;
  target_ = target;
  welcome_ = {200, 206};
  prepare(request);
}

void Transfer::prepare_text(const HttpRequest& request, uint64_t most, std::vector<int> welcome) {
  most_text_ = most;
  welcome_ = std::move(welcome);
  prepare(request);
}

void Transfer::prepare_whole(const HttpRequest& request,
                             std::function<std::string(std::span<const char>)> put) {
  put_ = std::move(put);
  welcome_ = {200};
  prepare(request);
}

void Transfer::set_method(const HttpRequest& request) {
  CURL* const easy = easy_.get();
  if (request.method == "HEAD") {
    curl_.easy_setopt(easy, CURLOPT_NOBODY, 1L);
  } else if (request.method == "GET") {
    curl_.easy_setopt(easy, CURLOPT_HTTPGET, 1L);
  } else {
    curl_.easy_setopt(easy, CURLOPT_POST, 1L);
    curl_.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    curl_.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                      static_cast<curl_off_t>(request.body.size()));
    curl_.easy_setopt(easy, CURLOPT_POSTFIELDS, request.body.data());
  }
}

void Transfer::prepare(const HttpRequest& request) {
  CURL* const easy = easy_.get();
  url_ = request.url;
  set_method(request);
  curl_.easy_setopt(easy, CURLOPT_URL, request.url.text().c_str());
  const auto add = [&](const std::string& line) {
    headers_ = curl_.slist_append(headers_, line.c_str());
  };
  for (const auto& [name, value] : request.headers) add(fmt::format("{}: {}", name, value));
  add("Accept-Encoding: identity");
  add("Expect:");
  if (request.method == "PUT" || request.method == "POST") add("Content-Type:");
  curl_.easy_setopt(easy, CURLOPT_HTTPHEADER, headers_);
  curl_.easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  curl_.easy_setopt(easy, CURLOPT_HEADERDATA, this);
  curl_.easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  curl_.easy_setopt(easy, CURLOPT_WRITEDATA, this);
  curl_.easy_setopt(easy, CURLOPT_ERRORBUFFER, trouble_.data());
}

void Transfer::distrust() {
  curl_.easy_setopt(easy_.get(), CURLOPT_OPENSOCKETFUNCTION, &Transfer::open_socket);
  curl_.easy_setopt(easy_.get(), CURLOPT_OPENSOCKETDATA, this);
  curl_.easy_setopt(easy_.get(), CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
}

void Transfer::use_fresh_connection() { curl_.easy_setopt(easy_.get(), CURLOPT_FRESH_CONNECT, 1L); }

// Names may resolve to what an address in the URL would have been refused for.
curl_socket_t Transfer::open_socket(void* self, curlsocktype /*purpose*/, curl_sockaddr* address) {
  bool refused = false;
  if (address->family == AF_INET) {
    sockaddr_in four{};
    std::memcpy(&four, &address->addr, sizeof four);
    refused = (ntohl(four.sin_addr.s_addr) >> 16) == 0xa9fe;
  } else if (address->family == AF_INET6) {
    sockaddr_in6 six{};
    std::memcpy(&six, &address->addr, std::min<size_t>(sizeof six, address->addrlen));
    const uint8_t* const bytes = six.sin6_addr.s6_addr;
    refused = IN6_IS_ADDR_LINKLOCAL(&six.sin6_addr) ||
              (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr) && bytes[12] == 169 && bytes[13] == 254);
  }
  if (refused) {
    static_cast<Transfer*>(self)->fail(ErrorCode::source,
                                       "a redirect to a link-local host, which is not followed");
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

size_t Transfer::on_header(char* data, size_t size, size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  transfer.heard_ += size * count;
  transfer.head_.add_line({data, size * count});
  return size * count;
}

size_t Transfer::on_body(char* data, size_t size, size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  transfer.heard_ += size * count;
  return transfer.take({data, size * count}) ? size * count : 0;
}

bool Transfer::fail(ErrorCode code, std::string reason, bool no_parts) {
  failure_ = Verdict{Verdict::Kind::failed, code, std::move(reason), {}, {}, false, no_parts};
  return false;
}

bool Transfer::is_welcome() const {
  return std::find(welcome_.begin(), welcome_.end(), head_.status) != welcome_.end();
}

bool Transfer::take(std::span<const char> bytes) {
  if (!judged_) {
    judged_ = true;
    if (!judge_head()) return false;
  }
  if (gate && is_welcome() && !gate()) return false;
  if (put_ && is_welcome()) {
    std::string reason = put_(bytes);
    return reason.empty() || fail(ErrorCode::memory, std::move(reason));
  }
  if (!is_welcome() || !wanted_) {
    const uint64_t most = is_welcome() ? most_text_ : kLongestRefusal;
    if (is_welcome() && text_.size() + bytes.size() > most) {
      return fail(ErrorCode::data, fmt::format("the answer is longer than {} bytes", most));
    }
    text_.append(bytes.data(), std::min<uint64_t>(bytes.size(), most - text_.size()));
    return true;
  }
  if (received_ + bytes.size() > wanted_->size) {
    return fail(ErrorCode::data, "the server sent more than was asked for");
  }
  std::memcpy(target_ + received_, bytes.data(), bytes.size());
  received_ += bytes.size();
  return true;
}

bool Transfer::judge_head() {
  if (!is_welcome() || (!wanted_ && !put_)) return true;
  const std::string encoding = head_.header("content-encoding");
  // S3-like servers keep the word aws-chunked, which is of an upload: what they send is plain.
  if (!encoding.empty() && encoding != "identity" && encoding != "aws-chunked") {
    return fail(ErrorCode::source,
                fmt::format("the server sends it as {}, though asked not to: parts of that are of "
                            "no use",
                            encoding.substr(0, 40)),
                true);
  }
  if (put_) return true;
  // gofakes3, which rclone serves S3 with, sends the part that was asked for as 200.
  const bool part = !head_.header("content-range").empty();
  return head_.status == 200 && !part ? judge_whole() : judge_range();
}

// Who is asked for all bytes of a content may answer with all of it.
bool Transfer::judge_whole() {
  const bool known = wanted_->identity.has_value();
  if (known && !same_content(*wanted_->identity, head_)) {
    return fail(ErrorCode::data, "the content changed while it was being read");
  }
  const auto size = to_number(head_.header("content-length"));
  const bool all = wanted_->offset == 0 && size && *size <= wanted_->size;
  if (!all || (known && (*size != wanted_->identity->size || *size != wanted_->size))) {
    return fail(ErrorCode::source,
                "200 OK: the server ignores Range, and would send the whole content for every "
                "part: the storage option whole=true brings it here first",
                true);
  }
  wanted_->size = *size;
  return true;
}

bool Transfer::judge_range() {
  if (head_.header("content-type").starts_with("multipart/byteranges")) {
    return fail(ErrorCode::source, "the server sent several parts where one was asked for");
  }
  const std::string text = head_.header("content-range");
  const auto range = parse_content_range(text);
  if (!range || !range->first) {
    return fail(ErrorCode::data, "206 Partial Content without a Content-Range that can be read");
  }
  const auto length = to_number(head_.header("content-length"));
  if (length && *length != range->last - *range->first + 1) {
    return fail(ErrorCode::data, fmt::format("the server says bytes {}-{}, and sends {} bytes",
                                             *range->first, range->last, *length));
  }
  // The first look at a content asks for more than it may have.
  const bool known = wanted_->identity.has_value();
  const uint64_t last = wanted_->offset + wanted_->size - 1;
  if (*range->first != wanted_->offset || range->last > last || (known && range->last != last)) {
    return fail(ErrorCode::data, fmt::format("the server sent bytes {}-{} instead of {}-{}",
                                             *range->first, range->last, wanted_->offset, last));
  }
  if (!known) {
    wanted_->size = range->last - wanted_->offset + 1;
    return true;
  }
  if (range->size && *range->size != wanted_->identity->size) {
    return fail(ErrorCode::data,
                fmt::format("the content changed while it was being read: its size is {} now",
                            *range->size));
  }
  if (!same_content(*wanted_->identity, head_)) {
    return fail(ErrorCode::data,
                "the content changed while it was being read: its ETag is another");
  }
  return true;
}

Verdict Transfer::judge_status() const {
  Verdict verdict;
  const int status = head_.status;
  const std::string location = head_.header("location");
  if ((status >= 301 && status <= 303) || status == 307 || status == 308) {
    if (!location.empty()) {
      try {
        verdict.location = resolve_url(url_, location);
      } catch (const Error&) {
        return {Verdict::Kind::failed, ErrorCode::source, "a redirect to what is no URL", {}, {}};
      }
      verdict.reason = why_not_follow(url_, verdict.location);
      verdict.kind = verdict.reason.empty() ? Verdict::Kind::redirect : Verdict::Kind::failed;
      return verdict;
    }
  }
  verdict.reason = refusal();
  verdict.kind = may_pass(status) ? Verdict::Kind::again : Verdict::Kind::failed;
  if (status == 412 && wanted_ && wanted_->identity.has_value()) {
    verdict.code = ErrorCode::data;
    verdict.reason += ": the content changed while it was being read";
  }
  // S3 answers 503 SlowDown and 500 with 200 bodies in places; its clock is named as the reason.
  if (const auto pause = retry_after(head_, ::time(nullptr))) verdict.pause = *pause;
  return verdict;
}

// Some servers repeat what they were asked, with what signed it.
std::string Transfer::refusal() const {
  ResponseHead head = head_;
  std::string text = text_;
  for (const std::string& secret : secrets_of(url_.query, headers_)) {
    replace_all(text, secret);
    for (auto& [name, value] : head.headers) replace_all(value, secret);
  }
  return describe_refusal(head, text);
}

Verdict Transfer::verdict(CURLcode code) const {
  if (failure_) return *failure_;
  if (head_.status != 0 && !is_welcome() && (code == CURLE_OK || may_pass(code))) {
    return judge_status();
  }
  if (code == CURLE_OK && wanted_ && received_ < wanted_->size) code = CURLE_PARTIAL_FILE;
  if (code == CURLE_OK) return {};
  if (head_.status == 0) {
    if (auto refusal = judge_tunnel()) return *refusal;
  }
  Verdict verdict;
  verdict.kind = may_pass(code) ? Verdict::Kind::again : Verdict::Kind::failed;
  verdict.nobody_there = rarely_passes(code);
  verdict.reason =
      code == CURLE_PARTIAL_FILE && wanted_
          ? fmt::format("the connection ended after {} of {} bytes", received_, wanted_->size)
          : without_users(trouble_[0] != 0 ? trouble_.data() : curl_.easy_strerror(code));
  return verdict;
}

// A proxy that was asked for a tunnel to the server, and gave none.
std::optional<Verdict> Transfer::judge_tunnel() const {
  long status = 0;
  curl_.easy_getinfo(easy_.get(), CURLINFO_HTTP_CONNECTCODE, &status);
  if (status == 0 || status / 100 == 2) return std::nullopt;
  ResponseHead proxy;
  proxy.status = static_cast<int>(status);
  Verdict verdict;
  verdict.kind = may_pass(proxy.status) ? Verdict::Kind::again : Verdict::Kind::failed;
  verdict.nobody_there = true;
  verdict.reason =
      fmt::format("the proxy gives no way to {}: {}", url_.host, describe_refusal(proxy, {}));
  return verdict;
}

}  // namespace inrush
