#include "inrush/stores/bucket.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <mutex>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/net/object.h"
#include "inrush/stores/opened.h"

namespace inrush {
namespace {

constexpr size_t kMostEntries = 1'000'000;  // of one folder

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
    const std::string slashed = "/" + name + "/";
    if (name.empty() || slashed.find("/../") != std::string::npos) {
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

  std::vector<std::string> list_from(const Url& base) {
    std::vector<std::string> names;
    std::string next;
    do {
      const HttpRequest request = bucket_.list(base, prefix_, next);
      const Answer answer = bucket_.client->ask(
          request, {.what = "list " + bucket_.shown + prefix_, .welcome = {200}});
      ListPage page;
      try {
        page = bucket_.parse(answer.body, prefix_);
      } catch (const Error& error) {
        throw Error(error.code(),
                    fmt::format("list {}{}: {}", bucket_.shown, prefix_, error.message()));
      }
      if (page.next == next && !next.empty()) {
        throw Error(ErrorCode::data, fmt::format("list {}{}: the listing goes round in circles",
                                                 bucket_.shown, prefix_));
      }
      next = std::move(page.next);
      std::move(page.names.begin(), page.names.end(), std::back_inserter(names));
    } while (!next.empty() && names.size() < kMostEntries);
    if (!pattern_.empty()) {
      std::erase_if(names, [&](const std::string& name) {
        return ::fnmatch(pattern_.c_str(), name.c_str(), 0) != 0;
      });
    }
    std::sort(names.begin(), names.end());
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

}  // namespace

BucketUri split_bucket_uri(const std::string& uri) {
  const size_t start = uri.find("://") + 3;
  const size_t slash = std::min(uri.find('/', start), uri.size());
  BucketUri parts{uri.substr(start, slash - start),
                  slash < uri.size() ? uri.substr(slash + 1) : std::string()};
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
  return parts;
}

Place place_in(Bucket bucket, const std::string& key) {
  const size_t slash = key.rfind('/') == std::string::npos ? 0 : key.rfind('/') + 1;
  const std::string prefix = key.substr(0, slash);
  const std::string name = key.substr(slash);
  if (name.find_first_of("*?[") != std::string::npos) {
    return {std::make_unique<BucketStore>(std::move(bucket), prefix, name, ""), ""};
  }
  if (name.empty()) return {std::make_unique<BucketStore>(std::move(bucket), prefix, "", ""), ""};
  if (!has_ending(name)) {
    auto file = std::make_unique<BucketStore>(bucket, prefix, "", name);
    if (file->has(name)) return {std::move(file), name};
    return {std::make_unique<BucketStore>(std::move(bucket), key + "/", "", ""), ""};
  }
  return {std::make_unique<BucketStore>(std::move(bucket), prefix, "", name), name};
}

}  // namespace inrush
