// Blobs that engines of remote places read: from an HTTP server in this process, a redis-server, or
// a cache in front of the former. Ended with the object.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "inrush/base/cache_file.h"
#include "inrush/net/object.h"
#include "tests/engines/scratch.h"
#include "tests/http_server.h"
#include "tests/redis_server.h"

namespace inrush::testing {

class Servers {
 public:
  // `engine`: "http", "redis" or "cache". `folder`: where a cache may be kept.
  Servers(std::string_view engine, const std::string& folder)
      : cached_(engine == "cache"), cache_dir_(folder + "/cache") {
    if (engine == "redis") {
      redis_ = std::make_unique<RedisServer>();
      connection_ = redis_->connect();
    } else {
      http_ = std::make_unique<HttpServer>();
      client_ = std::make_shared<const Client>(ClientOptions{}, nullptr);
    }
  }

  // False where there is no redis-server.
  [[nodiscard]] bool are_there() const { return http_ || connection_; }

  Blob blob(const std::string& name, const Bytes& bytes) {
    return redis_ ? redis_blob(name, bytes) : cached_ ? cached_blob(name, bytes) : put(name, bytes);
  }

 private:
  Blob put(const std::string& name, const Bytes& bytes) {
    const std::string url = http_->put(name, bytes);
    return open_object(client_, {parse_url(url), url});
  }

  Blob cached_blob(const std::string& name, const Bytes& bytes) {
    if (!cache_) cache_ = CacheRoot(cache_dir_, 0).folder_of("http://test/");
    Blob blob = put(name, bytes);
    auto both = std::make_shared<CachedBlob>();
    both->inner = blob;
    both->file = CacheFile::open(cache_, blob);
    blob.engine = "cache";
    blob.handle = std::move(both);
    return blob;
  }

  // In keys of at most 100,000 bytes.
  Blob redis_blob(const std::string& name, const Bytes& bytes) {
    constexpr size_t kKey = 100'000;
    auto file = std::make_shared<RedisFile>();
    file->place = parse_redis_uri(redis_->uri(name));
    for (size_t at = 0; at < bytes.size(); at += kKey) {
      const size_t size = std::min(kKey, bytes.size() - at);
      const std::string key = name + ":part:" + std::to_string(at);
      connection_->ask({"SET", key, {reinterpret_cast<const char*>(bytes.data()) + at, size}});
      file->segments.push_back({key, at, size});
    }
    Blob blob;
    blob.name = redis_->uri(name);
    blob.size = blob.identity.size = bytes.size();
    blob.engine = "redis";
    blob.path = file->place.shown;
    blob.handle = std::move(file);
    return blob;
  }

  bool cached_;
  std::string cache_dir_;
  std::unique_ptr<RedisServer> redis_;
  std::unique_ptr<RedisConnection> connection_;
  std::unique_ptr<HttpServer> http_;
  std::shared_ptr<const Client> client_;
  std::shared_ptr<CacheFolder> cache_;
};

}  // namespace inrush::testing
