// How this process speaks HTTP with the hosts of one store: time limits, TLS roots, proxies, and
// connections kept from one request or engine to the next. Any thread; a forked child gets
// connections of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "inrush/core/storage.h"
#include "inrush/shim/curl.h"
#include "inrush/wire/request.h"
#include "inrush/wire/response.h"

namespace inrush {

struct ClientOptions {
  std::string ca_file;           // TLS roots; empty: the library's own
  std::string ca_folder;         // the same, as a folder of hashed names
  bool any_certificate = false;  // believe any server
  bool whole = false;            // where a server takes no parts, bring the content here as a whole
  std::string proxy;             // empty: as the environment has it
  std::vector<std::string> headers;  // "Name: value", sent to the store's own host only
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds patience{60'000};  // without a byte, until a request is given up
  std::chrono::milliseconds hedge{2'000};  // without a byte, until a second one is sent beside it
  uint32_t connections = 64;               // to one host, of one lane
};

// From the words that docs/network.md has for all HTTP places, and the environment; takes those
// words out of `words`. Throws Error{usage} for a value that makes no sense.
ClientOptions client_options(std::map<std::string, std::string>& words);

// "true", "True" or "1".
bool is_true(const std::string& text);

// The word's value, taken out of `words`; empty where there is none.
std::string take_word(std::map<std::string, std::string>& words, const char* name);

// The same of a word that says seconds, as "2.5"; `into` is left where there is none.
void take_seconds(std::map<std::string, std::string>& words, const char* name,
                  std::chrono::milliseconds& into);

// Throws Error{usage} naming the first word left over, and `known` ones.
void check_all_known(const std::map<std::string, std::string>& words, const std::string& uri,
                     const char* known);

// The file of TLS roots that would be used: an environment variable's, else the distribution's.
// Empty where there is none.
std::string find_tls_roots();

using EasyHandle = std::unique_ptr<CURL, decltype(&::curl_easy_cleanup)>;
using MultiHandle = std::unique_ptr<CURLM, decltype(&::curl_multi_cleanup)>;

struct Answer {
  ResponseHead head;
  std::string body;
  Url url;  // that gave it, after redirects
};

// What ask() must know beside the request.
struct AskOptions {
  std::string what;                    // begins its errors: "open https://host/path"
  uint64_t most_bytes = 64ULL << 20;   // of the body
  std::vector<int> welcome{200, 206};  // other statuses are errors
};

class Client {
 public:
  Client(ClientOptions options, std::shared_ptr<const Signer> signer);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] const ClientOptions& options() const { return options_; }

  // The whole answer, asked for again where that may help. Throws Error.
  Answer ask(const HttpRequest& request, const AskOptions& options) const;

  // A handle with all that is settled for every request; give_back() keeps its connections.
  [[nodiscard]] EasyHandle borrow() const;
  void give_back(EasyHandle handle) const;

  // One that drives many requests; give_back(), without any in it, keeps its connections for the
  // next engine.
  [[nodiscard]] MultiHandle borrow_multi() const;
  void give_back(MultiHandle handle) const;

  // Makes a used handle as a borrowed one is.
  void settle(CURL* easy) const;

  // Signs, where the host is the store's own.
  void sign(HttpRequest& request, const Url& home) const;

 private:
  struct Pool;

  ClientOptions options_;
  std::shared_ptr<const Signer> signer_;  // may be null
  std::unique_ptr<Pool> pool_;
};

}  // namespace inrush
