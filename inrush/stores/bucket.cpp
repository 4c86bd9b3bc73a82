#include "inrush/stores/bucket.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <mutex>

#include "inrush/base/text.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/net/object.h"
#include "inrush/stores/opened.h"

namespace inrush {
namespace {

constexpr size_t kMostEntries = 1'000'000;  // of one folder
constexpr size_t kMostBarren = 200;         // pages without a file, one behind the other

// Whether what is between a server and here may take the key for another one.
bool leads_away(const std::string& key) { return has_part(key, "..") || has_part(key, "."); }

class BucketStore final : public Store {
 public:
  BucketStore(Bucket bucket, std::string prefix, std::string pattern, std::string entry)
      : bucket_(std::move(bucket)),
        prefix_(std::move(prefix)),
        pattern_(std::move(pattern)),
        entry_(std::move(entry)) {}

  [[nodiscard]] std::string uri() const override {
    return bucket_.shown + prefix_ + (entry_.empty() ? pattern_ : entry_);
  }

  std::vector<std::string> list() override {
    return settled<std::vector<std::string>>([this](const Url& base) { return list_from(base); });
  }

  Blob open(const std::string& name) override {
    if (name.empty() || name.front() == '/' || leads_away(name)) {
      throw Error(ErrorCode::data, fmt::format("open {} in {}: the name leads out of the folder",
                                               quoted(name), uri()));
    }
    return opened_.get(name, [&] {
      return settled<Blob>([&](const Url& base) {
        return open_object(bucket_.client, {.url = url_of(base, name),
                                            .name = bucket_.shown + prefix_ + name,
                                            .asks_sum = bucket_.asks_sums});
      });
    });
  }

  Identity identity(const Blob& blob) override { return identity_of_object(blob); }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    read_object(blob, offset, target);
  }

  // Whether there is an object of that name.
  bool has(const std::string& name) {
    return settled<bool>([&](const Url& base) {
      return look_for_object(*bucket_.client, url_of(base, name)).status < 400;
    });
  }

 private:
  [[nodiscard]] Url url_of(const Url& base, const std::string& name) const {
    Url url = base;
    url.path += percent_encoded(prefix_ + name, true);
    if (name == entry_) url.query = bucket_.query;
    return url;
  }

  // Does the work; where it is refused and the bucket turns out to be elsewhere, once more there.
  template <typename Result, typename Work>
  Result settled(Work work) {
    Url base;
    bool fresh = false;
    {
      const std::lock_guard lock(mutex_);
      base = bucket_.base;
      fresh = !relocated_ && bucket_.relocate;
    }
    try {
      return work(base);
    } catch (const Error& error) {
      if (!fresh || error.code() != ErrorCode::source) throw;
      const std::lock_guard lock(mutex_);
      const bool moved = relocated_ ? moved_ : (moved_ = bucket_.relocate(bucket_.base));
      relocated_ = true;
      if (!moved) throw;
      base = bucket_.base;
    }
    return work(base);
  }

  [[noreturn]] void refuse_listing(ErrorCode code, const std::string& why) const {
    throw Error(code, fmt::format("list {}{}: {}", bucket_.shown, prefix_, why));
  }

  std::vector<std::string> list_from(const Url& base) {
    std::vector<std::string> names;
    std::string next;
    size_t barren = 0;
    do {
      if (barren > kMostBarren || names.size() > kMostEntries) {
        refuse_listing(ErrorCode::source, "it does not end: name the objects, or a longer prefix");
      }
      const HttpRequest request = bucket_.list(base, prefix_, next);
      const Answer answer = bucket_.client->ask(
          request, {.what = "list " + bucket_.shown + prefix_, .welcome = {200}});
      ListPage page;
      try {
        page = bucket_.parse(answer.body, prefix_);
      } catch (const Error& error) {
        refuse_listing(error.code(), error.message());
      }
      if (page.next == next && !next.empty()) {
        refuse_listing(ErrorCode::data, "the listing goes round in circles");
      }
      next = std::move(page.next);
      barren = page.names.empty() ? barren + 1 : 0;
      std::move(page.names.begin(), page.names.end(), std::back_inserter(names));
    } while (!next.empty());
    if (!pattern_.empty()) {
      std::erase_if(names, [&](const std::string& name) {
        return ::fnmatch(pattern_.c_str(), name.c_str(), 0) != 0;
      });
    }
    std::sort(names.begin(), names.end());
    // Pages overlap where somebody writes meanwhile.
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }

  std::mutex mutex_;  // over bucket_.base and what follows
  Bucket bucket_;
  bool relocated_ = false;
  bool moved_ = false;
  std::string prefix_;   // "" or with its slash
  std::string pattern_;  // of the names that list() gives; empty: all
  std::string entry_;
  OpenedBlobs opened_;
};

// Names of files have an ending; what has none may be a folder.
bool has_ending(const std::string& name) { return name.find('.') != std::string::npos; }

// Takes "?name=value" off the key.
std::pair<std::string, std::string> take_query(std::string& key) {
  for (size_t at = key.find('?'); at != std::string::npos; at = key.find('?', at + 1)) {
    const size_t equals = std::min(key.find('=', at), key.size());
    const std::string name = key.substr(at + 1, equals - at - 1);
    const bool word = std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '-' || c == '_';
    });
    if (name.empty() || !word || equals == key.size()) continue;
    std::pair<std::string, std::string> query{name, key.substr(equals + 1)};
    key.resize(at);
    return query;
  }
  return {};
}

std::string take_version(const std::string& scheme, BucketUri& parts) {
  const auto [name, value] = take_query(parts.key);
  const bool known = scheme == "gs" ? name == "generation" || name == "versionId"
                                    : scheme == "s3" && name == "versionId";
  const bool one = !value.empty() && value.find('&') == std::string::npos;
  if (name.empty() || (known && one)) return value;
  const char* const why =
      scheme == "az" ? "a shared access signature does not stand in the URI; it is the storage "
                       "option sas"
                     : "a version may stand there (?versionId=...), and nothing else; credentials "
                       "are storage options, or in the environment";
  throw Error(ErrorCode::usage,
              fmt::format("open {}://{}/{}?...: {}", scheme, parts.bucket, parts.key, why));
}

}  // namespace

BucketUri split_bucket_uri(const std::string& uri) {
  const size_t start = uri.find("://") + 3;
  const size_t slash = std::min(uri.find('/', start), uri.size());
  BucketUri parts{.bucket = uri.substr(start, slash - start),
                  .key = slash < uri.size() ? uri.substr(slash + 1) : std::string(),
                  .version = ""};
  const bool plain = std::all_of(parts.bucket.begin(), parts.bucket.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
  });
  // What may be a secret is not said again.
  if (parts.bucket.find('@') != std::string::npos) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}...@...: credentials do not stand in the URI; they are storage "
                            "options, or in the environment",
                            uri.substr(0, start)));
  }
  if (parts.bucket.empty() || !plain) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: expected {}bucket/key", quoted(uri), uri.substr(0, start)));
  }
  parts.version = take_version(lower(uri.substr(0, start - 3)), parts);
  if (leads_away(parts.key)) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: a key with . or .. between its slashes may lead out of the "
                            "bucket",
                            quoted(uri)));
  }
  return parts;
}

Place place_in(Bucket bucket, const std::string& key) {
  const size_t slash = key.rfind('/') == std::string::npos ? 0 : key.rfind('/') + 1;
  const std::string prefix = key.substr(0, slash);
  const std::string name = key.substr(slash);
  const auto refuse_version = [&] {
    if (bucket.query.empty()) return;
    throw Error(ErrorCode::usage,
                fmt::format("open {}{}: a version is of one object, and this names several",
                            bucket.shown, key));
  };
  if (name.empty() || name.find_first_of("*?[") != std::string::npos) refuse_version();
  if (name.find_first_of("*?[") != std::string::npos) {
    return {std::make_unique<BucketStore>(std::move(bucket), prefix, name, ""), ""};
  }
  if (name.empty()) return {std::make_unique<BucketStore>(std::move(bucket), prefix, "", ""), ""};
  if (!has_ending(name)) {
    auto file = std::make_unique<BucketStore>(bucket, prefix, "", name);
    if (file->has(name)) return {std::move(file), name};
    refuse_version();
    return {std::make_unique<BucketStore>(std::move(bucket), key + "/", "", ""), ""};
  }
  return {std::make_unique<BucketStore>(std::move(bucket), prefix, "", name), name};
}

}  // namespace inrush
