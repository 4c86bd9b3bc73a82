// What a caller says of a remote place beside its URI: options by name, which each store knows its
// own of, and credentials that may be renewed while a load runs. Values, except CredentialBox.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace inrush {

// What signs requests: an access key pair of S3, or a bearer token of the others.
struct Credentials {
  std::string key_id;
  std::string secret;
  std::string token;    // session token beside a key pair, or the bearer token by itself
  int64_t expires = 0;  // seconds since 1970; 0: never

  [[nodiscard]] bool empty() const { return key_id.empty() && token.empty(); }
};

// Credentials as of now. Any thread: one renews them while others sign.
class CredentialBox {
 public:
  void put(Credentials credentials) {
    const std::lock_guard lock(mutex_);
    credentials_ = std::move(credentials);
  }
  [[nodiscard]] Credentials get() const {
    const std::lock_guard lock(mutex_);
    return credentials_;
  }

 private:
  mutable std::mutex mutex_;
  Credentials credentials_;
};

struct StorageOptions {
  std::map<std::string, std::string> words;    // "endpoint" -> "http://localhost:9000"
  std::shared_ptr<CredentialBox> credentials;  // instead of what a store finds by itself
  std::string cache_dir{};                     // where remote files are kept; empty: nowhere
  uint64_t cache_size = 0;                     // bytes of all that is kept there; 0: no limit
};

}  // namespace inrush
