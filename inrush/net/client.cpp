#include "inrush/net/client.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "inrush/base/environment.h"
#include "inrush/core/error.h"
#include "inrush/net/attempts.h"
#include "inrush/net/transfer.h"

namespace inrush {
namespace {

constexpr long kReceiveBuffer = 512 << 10;  // bytes; the most that libcurl allows
// Of libcurl before 7.85 and after it, and since 7.87.
constexpr auto kProtocols = static_cast<CURLoption>(CURLOPTTYPE_LONG + 181);
constexpr auto kQuickExit = static_cast<CURLoption>(CURLOPTTYPE_LONG + 322);
constexpr size_t kMostKept = 16;    // idle handles
constexpr size_t kMostEngines = 4;  // whose connections are kept
constexpr long kStallSeconds = 15;

bool is_file(const std::string& path) {
  struct stat status {};
  return !path.empty() && ::stat(path.c_str(), &status) == 0;
}

// Names may not break out of their line.
std::vector<std::string> take_headers(std::map<std::string, std::string>& words) {
  std::vector<std::string> headers;
  std::string text = take_word(words, "headers");
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string line = text.substr(0, end);
    text.erase(0, end + 1);
    if (line.empty()) continue;
    if (line.find(':') == std::string::npos || line.find('\r') != std::string::npos) {
      throw Error(ErrorCode::usage, "headers: expected lines of \"Name: value\"");
    }
    headers.push_back(std::move(line));
  }
  return headers;
}

}  // namespace

std::string take_word(std::map<std::string, std::string>& words, const char* name) {
  const auto found = words.find(name);
  if (found == words.end()) return "";
  std::string value = std::move(found->second);
  words.erase(found);
  return value;
}

void take_seconds(std::map<std::string, std::string>& words, const char* name,
                  std::chrono::milliseconds& into) {
  const std::string text = take_word(words, name);
  if (text.empty()) return;
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || !(seconds > 0) ||
      seconds > 86400) {
    throw Error(ErrorCode::usage, fmt::format("{} {}: expected seconds, above 0", name, text));
  }
  into = std::chrono::milliseconds(std::max<int64_t>(1, static_cast<int64_t>(seconds * 1000)));
}

bool is_true(const std::string& text) { return text == "true" || text == "True" || text == "1"; }

std::string find_tls_roots() {
  const NetEnvironment environment = read_net_environment();
  for (const std::string& path : environment.ca_files) {
    if (!path.empty()) return path;
  }
  for (const char* path :
       {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem"}) {
    if (is_file(path)) return path;
  }
  return "";
}

ClientOptions client_options(std::map<std::string, std::string>& words) {
  ClientOptions options;
  const NetEnvironment environment = read_net_environment();
  options.ca_file = take_word(words, "ca_file");
  options.ca_folder = take_word(words, "ca_folder");
  const std::string fallback = take_word(words, "ca_fallback");
  if (options.ca_folder.empty()) {
    if (options.ca_file.empty()) options.ca_file = find_tls_roots();
    if (options.ca_file.empty()) options.ca_file = fallback;
    options.ca_folder = environment.ca_folder;
  }
  if (!options.ca_file.empty() && !is_file(options.ca_file)) {
    throw Error(ErrorCode::usage, fmt::format("TLS roots {}: no such file", options.ca_file));
  }
  options.any_certificate = is_true(take_word(words, "allow_invalid_certificates"));
  options.whole = is_true(take_word(words, "whole"));
  options.proxy = take_word(words, "proxy");
  options.headers = take_headers(words);
  take_seconds(words, "timeout", options.patience);
  take_seconds(words, "connect_timeout", options.connect_timeout);
  take_seconds(words, "hedge", options.hedge);
  const std::string connections = take_word(words, "connections");
  if (!connections.empty()) {
    const char* const end = connections.data() + connections.size();
    const auto [stop, error] = std::from_chars(connections.data(), end, options.connections);
    if (error != std::errc() || stop != end || options.connections == 0) {
      throw Error(ErrorCode::usage,
                  fmt::format("connections {}: expected a number, above 0", connections));
    }
  }
  return options;
}

void check_all_known(const std::map<std::string, std::string>& words, const std::string& uri,
                     const char* known) {
  if (words.empty()) return;
  throw Error(ErrorCode::usage, fmt::format("open {}: storage option {} is not known here ({})",
                                            uri, words.begin()->first, known));
}

struct Client::Pool {
  std::mutex mutex;  // over what follows
  std::vector<EasyHandle> idle;
  std::vector<MultiHandle> idle_multis;
  pid_t owner = ::getpid();

  Pool() { idle_multis.reserve(kMostEngines); }

  // The parent's connections are its own to close: in TLS that sends something.
  void leave_to_parent() {
    if (owner == ::getpid()) return;
    for (EasyHandle& handle : idle) [[maybe_unused]] CURL* left = handle.release();
    for (MultiHandle& handle : idle_multis) [[maybe_unused]] CURLM* left = handle.release();
    idle.clear();
    idle_multis.clear();
    owner = ::getpid();
  }
};

Client::Client(ClientOptions options, std::shared_ptr<const Signer> signer)
    : options_(std::move(options)), signer_(std::move(signer)), pool_(std::make_unique<Pool>()) {
  load_curl();
}

Client::~Client() { pool_->leave_to_parent(); }

EasyHandle Client::borrow() const {
  const Curl& curl = load_curl();
  EasyHandle handle(nullptr, curl.easy_cleanup);
  {
    const std::lock_guard lock(pool_->mutex);
    pool_->leave_to_parent();
    if (!pool_->idle.empty()) {
      handle = std::move(pool_->idle.back());
      pool_->idle.pop_back();
    }
  }
  if (handle == nullptr) handle.reset(curl.easy_init());
  if (handle == nullptr) throw Error(ErrorCode::memory, "libcurl: out of memory");
  settle(handle.get());
  return handle;
}

void Client::settle(CURL* easy) const {
  const Curl& curl = load_curl();
  curl.easy_reset(easy);
  const auto set = [&](CURLoption option, auto value) { curl.easy_setopt(easy, option, value); };
  set(CURLOPT_NOSIGNAL, 1L);
  set(kProtocols, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_USERAGENT, "inrush/0.1");
  set(CURLOPT_BUFFERSIZE, kReceiveBuffer);
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_OPTIONAL));
  // What a proxy says before its tunnel stands is no answer of the server's.
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout.count()));
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  // A folder that was named stands alone: without the file that the library has by itself.
  if (!options_.ca_file.empty() || !options_.ca_folder.empty()) {
    set(CURLOPT_CAINFO, options_.ca_file.empty() ? nullptr : options_.ca_file.c_str());
  }
  if (!options_.ca_folder.empty()) set(CURLOPT_CAPATH, options_.ca_folder.c_str());
  if (options_.any_certificate) {
    set(CURLOPT_SSL_VERIFYPEER, 0L);
    set(CURLOPT_SSL_VERIFYHOST, 0L);
  }
  if (!options_.proxy.empty()) set(CURLOPT_PROXY, options_.proxy.c_str());
  // Not to wait for a resolver that hangs; older libraries do not know it.
  set(kQuickExit, 1L);
}

void Client::give_back(EasyHandle handle) const {
  const std::lock_guard lock(pool_->mutex);
  if (pool_->idle.size() < kMostKept && pool_->owner == ::getpid()) {
    pool_->idle.push_back(std::move(handle));
  }
}

MultiHandle Client::borrow_multi() const {
  const Curl& curl = load_curl();
  {
    const std::lock_guard lock(pool_->mutex);
    pool_->leave_to_parent();
    if (!pool_->idle_multis.empty()) {
      MultiHandle handle = std::move(pool_->idle_multis.back());
      pool_->idle_multis.pop_back();
      return handle;
    }
  }
  MultiHandle handle(curl.multi_init(), curl.multi_cleanup);
  if (handle == nullptr) throw Error(ErrorCode::memory, "libcurl: out of memory");
  return handle;
}

void Client::give_back(MultiHandle handle) const {
  const std::lock_guard lock(pool_->mutex);
  if (pool_->idle_multis.size() < kMostEngines && pool_->owner == ::getpid()) {
    pool_->idle_multis.push_back(std::move(handle));
  }
}

void Client::sign(HttpRequest& request, const Url& home) const {
  const bool own = request.url.origin() == home.origin();
  if (!own && (!signer_ || !signer_->trusts(request.url))) return;
  for (const std::string& line : options_.headers) {
    const size_t colon = line.find(':');
    request.headers.emplace_back(
        line.substr(0, colon),
        line.substr(std::min(line.find_first_not_of(' ', colon + 1), line.size())));
  }
  if (signer_) signer_->sign(request);
}

Answer Client::ask(const HttpRequest& request, const AskOptions& options) const {
  Attempts attempts(options.what, request.url, options_.patience);
  for (;;) {
    HttpRequest signed_request = request;
    signed_request.url = attempts.url();
    sign(signed_request, request.url);
    Transfer transfer(borrow());
    transfer.prepare_text(signed_request, options.most_bytes, options.welcome);
    if (attempts.redirected()) transfer.distrust();
    const Verdict verdict = transfer.verdict(load_curl().easy_perform(transfer.easy()));
    Answer answer{transfer.head(), std::move(transfer.text()), attempts.url()};
    give_back(transfer.release());
    if (verdict.kind == Verdict::Kind::done) return answer;
    attempts.wait(verdict);
  }
}

}  // namespace inrush
