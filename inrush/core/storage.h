// What a caller says of a remote place beside its URI: options by name, which each store knows its
// own of, and credentials that may be renewed while a load runs. Values, except CredentialBox.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

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

// A file of a repository of the Hugging Face Hub, as the Hub describes it.
struct HubFile {
  std::string name;  // in the repository
  uint64_t size = 0;
  std::string etag;  // SHA-256 of its bytes in 64 hex digits, or Git's SHA-1 of a small one in 40
  std::string url;   // that names this content for ever; empty: it cannot be asked for
  std::string path;  // of the whole file on this machine; empty: it is not known to be here
};

// One commit of a repository, resolved by huggingface_hub, and where that keeps what it downloads.
struct HubSnapshot {
  std::string shown;     // "hf://org/name@main"
  std::string commit;    // 40 hex digits
  std::string revision;  // that was asked for and led there
  std::string folder;    // of the repository in huggingface_hub's cache; empty: nothing is kept
  std::string locks;     // the folder of its locks
  bool links = true;     // whether symbolic links may be made there
  std::string prefix;    // of the names in `files` that are meant: "", or a folder with its slash
  std::string entry;     // the one file that is meant, below the prefix; empty: all of them
  std::string offline;   // why the Hub cannot be asked; empty: it can
  std::vector<HubFile> files;
  std::shared_ptr<CredentialBox> credentials;  // the token; null: nobody signs
};

// Files of which a server gave no parts: by name. Any thread.
class HubRefusals {
 public:
  void add(const std::string& name) {
    const std::lock_guard lock(mutex_);
    names_.insert(name);
  }
  [[nodiscard]] std::set<std::string> names() const {
    const std::lock_guard lock(mutex_);
    return names_;
  }

 private:
  mutable std::mutex mutex_;
  std::set<std::string> names_;
};

struct HubPlace {
  std::shared_ptr<const HubSnapshot> snapshot;
  std::shared_ptr<HubRefusals> refusals;
};

struct StorageOptions {
  std::map<std::string, std::string> words;  // "endpoint" -> "http://localhost:9000"
  // By scheme, instead of what its store finds by itself. A mirror of another scheme sees none.
  std::map<std::string, std::shared_ptr<CredentialBox>> credentials;
  std::string cache_dir{};                // where remote files are kept; empty: nowhere
  uint64_t cache_size = 0;                // bytes of all that is kept there; 0: no limit
  std::map<std::string, HubPlace> hub{};  // what "hf://..." URIs stand for

  [[nodiscard]] std::shared_ptr<CredentialBox> credentials_of(const std::string& scheme) const {
    const auto found = credentials.find(scheme);
    return found == credentials.end() ? nullptr : found->second;
  }
};

}  // namespace inrush
