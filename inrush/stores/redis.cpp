// Whether a key changed is told by the server itself: CLIENT TRACKING (Redis 6) in broadcast mode
// sends the names of keys that were written, expired or evicted to a second connection. They are
// queued before any reply that could carry the changed bytes, so a PING there after a read sees
// them.
#include "inrush/stores/redis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "inrush/core/quoted.h"
#include "inrush/net/client.h"
#include "inrush/wire/redis.h"

namespace inrush {
namespace {

constexpr const char* kChannel = "__redis__:invalidate";
constexpr size_t kMostKeys = 1UL << 22;  // of one file

// Hears of changes.
class Watch {
 public:
  Watch(const RedisPlace& place, const std::string& what)
      : what_(what), asker_(place, what), listener_(place, what) {
    const std::string id = std::to_string(listener_.ask({"CLIENT", "ID"}).number);
    listener_.ask({"SUBSCRIBE", kChannel});
    id_ = id;
  }

  // Keys that begin with this, from now on.
  void add(const std::string& prefix) {
    const bool covered = std::any_of(prefixes_.begin(), prefixes_.end(),
                                     [&](const auto& one) { return prefix.starts_with(one); });
    if (covered) return;
    std::string command;
    resp::append(command, {"CLIENT", "TRACKING", "ON", "REDIRECT", id_, "BCAST", "PREFIX", prefix});
    const resp::Reply reply = asker_.ask(command, 1).front();
    if (reply.kind == resp::Kind::error) {
      throw Error(ErrorCode::source,
                  fmt::format("{}: the server cannot say when keys change, which takes Redis 6 or "
                              "later: {}",
                              what_, reply.text));
    }
    prefixes_.push_back(prefix);
  }

  // Whether one of these keys was touched since it was added.
  bool touched(const std::vector<RedisSegment>& keys) {
    // The answer to PING comes behind what was sent before; messages are passed over one by one.
    std::string ping;
    resp::append(ping, {"PING"});
    resp::Reply reply = listener_.ask(ping, 1).front();
    while (!is_pong(reply)) {
      note(reply);
      reply = listener_.ask({}, 1).front();
    }
    return all_ || std::any_of(keys.begin(), keys.end(), [&](const RedisSegment& segment) {
             return touched_.contains(segment.key);
           });
  }

 private:
  static bool is_pong(const resp::Reply& reply) {
    return reply.kind == resp::Kind::array && !reply.elements.empty() &&
           reply.elements.front().text == "pong";
  }

  void note(const resp::Reply& message) {
    const auto& parts = message.elements;
    if (parts.size() != 3 || parts[0].text != "message" || parts[1].text != kChannel) return;
    if (parts[2].kind != resp::Kind::array) all_ = true;  // the whole database was flushed
    for (const resp::Reply& key : parts[2].elements) touched_.insert(key.text);
    if (touched_.size() > kMostKeys) all_ = true;
  }

  std::string what_;
  RedisConnection asker_;
  RedisConnection listener_;
  std::string id_;
  std::vector<std::string> prefixes_;
  std::set<std::string> touched_;
  bool all_ = false;
};

class RedisStore final : public Store {
 public:
  RedisStore(RedisPlace place, std::string folder)
      : place_(std::move(place)),
        folder_(std::move(folder)),
        what_(fmt::format("open {}", uri())),
        connection_(place_, what_),
        watch_(place_, what_) {}

  [[nodiscard]] std::string uri() const override { return place_.shown + "/" + place_.key; }

  std::vector<std::string> list() override {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> names;
    for (const std::string& key : scan(redis_pattern(folder_) + "*:0")) {
      // "K:header:0": files of tensorizer's, and of this project's writer.
      constexpr std::string_view kFirst = ":header:0";
      if (!key.ends_with(kFirst)) continue;
      std::string name = key.substr(folder_.size(), key.size() - folder_.size() - kFirst.size());
      if (!name.empty() && name.find('/') == std::string::npos) names.push_back(std::move(name));
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  Blob open(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const std::string key = folder_ + name;
    Blob blob;
    blob.name = place_.shown + "/" + key;
    const bool alone = connection_.ask({"EXISTS", key}).number > 0;
    // Before its sizes are asked for: what changes from now on is noticed. Prefixes must not
    // overlap, so a folder is watched as a whole.
    watch_.add(!folder_.empty() ? folder_ : alone ? key : key + ":");
    auto file = std::make_shared<RedisFile>();
    file->place = place_;
    file->segments = alone ? sized({{key, 0, 0}}) : find_segments(key);
    check(blob.name, file->segments);
    blob.size = file->segments.back().offset + file->segments.back().size;
    blob.identity.size = blob.size;
    blob.handle = std::move(file);
    blob.engine = "redis";
    blob.path = place_.shown;
    blob.pieced = !alone;
    return blob;
  }

  Identity identity(const Blob& blob) override {
    const std::lock_guard lock(mutex_);
    Identity now = blob.identity;
    if (watch_.touched(redis_file(blob).segments)) now.etag = "touched";
    return now;
  }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    const std::string what = fmt::format("read {} [{}, +{})", blob.name, offset, target.size());
    if (offset > blob.size || target.size() > blob.size - offset) {
      throw Error(ErrorCode::data, fmt::format("{}: it ends at byte {}", what, blob.size));
    }
    const auto parts = parts_of(redis_file(blob), offset, target.size());
    std::string commands;
    for (const RedisPart& part : parts) append_get(commands, part);
    const std::lock_guard lock(mutex_);
    const auto replies = connection_.ask(commands, parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      if (replies[i].kind != resp::Kind::bulk) throw redis_error(what, replies[i]);
      if (replies[i].text.size() != parts[i].size) {
        throw Error(
            ErrorCode::data,
            fmt::format("{}: key {} gave {} of {} bytes: it was cut or removed", what,
                        quoted(parts[i].segment->key), replies[i].text.size(), parts[i].size));
      }
      std::memcpy(target.data(), replies[i].text.data(), parts[i].size);
      target = target.subspan(parts[i].size);
    }
  }

 private:
  std::vector<std::string> scan(const std::string& pattern) {
    std::set<std::string> keys;  // SCAN may name a key twice
    std::string cursor = "0";
    do {
      const resp::Reply reply =
          connection_.ask({"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"});
      if (reply.elements.size() != 2) throw redis_error(what_, reply);
      cursor = reply.elements[0].text;
      for (const resp::Reply& key : reply.elements[1].elements) keys.insert(key.text);
      if (keys.size() > kMostKeys) {
        throw Error(ErrorCode::data,
                    fmt::format("{}: more than {} keys match it", what_, kMostKeys));
      }
    } while (cursor != "0");
    return {keys.begin(), keys.end()};
  }

  // The keys of a file by offset; empty if there are none.
  std::vector<RedisSegment> find_segments(const std::string& key) {
    std::vector<RedisSegment> segments;
    for (std::string& one : scan(redis_pattern(key) + ":*")) {
      if (const auto offset = redis_offset(one)) segments.push_back({std::move(one), *offset, 0});
    }
    return sized(std::move(segments));
  }

  // With the sizes that they have, by offset, without those that are not there.
  std::vector<RedisSegment> sized(std::vector<RedisSegment> segments) {
    std::string commands;
    for (const RedisSegment& segment : segments) {
      resp::append(commands, {"STRLEN", segment.key});
    }
    const auto replies = connection_.ask(commands, segments.size());
    for (size_t i = 0; i < segments.size(); ++i) {
      if (replies[i].kind != resp::Kind::integer) {
        throw redis_error(fmt::format("{}: key {}", what_, quoted(segments[i].key)), replies[i]);
      }
      segments[i].size = static_cast<uint64_t>(replies[i].number);
    }
    std::erase_if(segments, [](const RedisSegment& segment) { return segment.size == 0; });
    std::sort(segments.begin(), segments.end(),
              [](const RedisSegment& a, const RedisSegment& b) { return a.offset < b.offset; });
    return segments;
  }

  static void check(const std::string& name, const std::vector<RedisSegment>& segments) {
    if (segments.empty()) {
      throw Error(ErrorCode::source, fmt::format("open {}: there is no such key, and none that "
                                                 "begins with it and a colon",
                                                 name));
    }
    uint64_t end = 0;
    for (const RedisSegment& segment : segments) {
      if (segment.offset > end) {
        throw Error(ErrorCode::data,
                    fmt::format("open {}: no key holds bytes [{}, +{}); key {} comes after them: "
                                "one was removed, or cut",
                                name, end, segment.offset - end, quoted(segment.key)));
      }
      if (segment.offset < end) {
        throw Error(ErrorCode::data,
                    fmt::format("open {}: two keys hold byte {}; one of them is {}", name,
                                segment.offset, quoted(segment.key)));
      }
      if (segment.size > UINT64_MAX - end) {
        throw Error(ErrorCode::data,
                    fmt::format("open {}: key {} ends beyond 2^64", name, quoted(segment.key)));
      }
      end += segment.size;
    }
  }

  RedisPlace place_;
  std::string folder_;
  std::string what_;
  std::mutex mutex_;
  RedisConnection connection_;
  Watch watch_;
};

}  // namespace

RedisPlace redis_place(const std::string& uri, const StorageOptions& options) {
  RedisPlace place = parse_redis_uri(uri);
  std::map<std::string, std::string> words = options.words;
  const std::string roots = take_word(words, "ca_file");
  if (place.endpoint.ca_file.empty()) place.endpoint.ca_file = roots;
  take_seconds(words, "timeout", place.patience);
  take_seconds(words, "connect_timeout", place.connecting);
  if (!words.empty()) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: storage option {} is not known (ca_file, connect_timeout, "
                            "timeout); a Redis server's login stands in the URI",
                            place.shown, words.begin()->first));
  }
  return place;
}

Place find_redis(const std::string& uri, const StorageOptions& options) {
  RedisPlace place = redis_place(uri, options);
  const size_t slash = place.key.rfind('/');
  const size_t split = slash == std::string::npos ? 0 : slash + 1;
  const std::string folder = place.key.substr(0, split);
  const std::string entry = place.key.substr(split);
  return {std::make_unique<RedisStore>(std::move(place), folder), entry};
}

}  // namespace inrush
