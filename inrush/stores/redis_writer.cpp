#include "inrush/stores/redis_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/random.h"
#include "inrush/core/error.h"
#include "inrush/stores/redis.h"
#include "inrush/wire/redis.h"

namespace inrush {
namespace {

constexpr uint64_t kBestPart = 8 * kMiB;
constexpr uint64_t kLargestPart = 256 * kMiB;  // half of the largest value of a server as it comes
constexpr const char* kLifetime = "86400";     // seconds that parts nobody finishes stay

std::string random_name() { return fmt::format("inrush-partial:{:016x}", random_bits()); }

// What lies under the key now: the key, and those that end in an offset behind it.
std::vector<std::string> keys_under(RedisConnection& connection, const std::string& key,
                                    const std::string& what) {
  std::set<std::string> keys{key};
  const std::string pattern = redis_pattern(key) + ":*";
  std::string cursor = "0";
  do {
    const resp::Reply reply = connection.ask({"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"});
    if (reply.elements.size() != 2) throw redis_error(what, reply);
    cursor = reply.elements[0].text;
    for (const resp::Reply& found : reply.elements[1].elements) {
      if (redis_offset(found.text)) keys.insert(found.text);
    }
  } while (cursor != "0");
  return {keys.begin(), keys.end()};
}

class RedisWriter final : public Writer {
 public:
  explicit RedisWriter(const RedisPlace& place)
      : key_(place.key),
        what_(fmt::format("write {}/{}", place.shown, place.key)),
        connection_(place, what_),
        partial_(random_name()) {
    if (key_.empty() || key_.back() == '/') {
      throw Error(ErrorCode::usage, fmt::format("{}: a key is needed to write to", what_));
    }
  }
  ~RedisWriter() override { abort(); }
  RedisWriter(const RedisWriter&) = delete;
  RedisWriter& operator=(const RedisWriter&) = delete;

  [[nodiscard]] WriterTraits traits() const override {
    WriterTraits traits;
    traits.largest_part = kLargestPart;
    traits.best_part = kBestPart;
    return traits;
  }

  void create(uint64_t size) override { size_ = size; }

  void write(uint64_t offset, std::span<const std::byte> data) override {
    if (data.empty()) return;
    parts_[offset] = data.size();
    const std::string name = partial_key(offset);
    const std::string_view bytes(reinterpret_cast<const char*>(data.data()), data.size());
    connection_.ask({"SET", name, bytes, "EX", kLifetime});
  }

  void finish() override {
    uint64_t end = 0;
    for (const auto& [offset, size] : parts_) {
      if (offset != end) {
        throw Error(ErrorCode::usage,
                    fmt::format("{}: bytes [{}, {}) were never written", what_, end, offset));
      }
      end += size;
    }
    if (end != size_) {
      throw Error(ErrorCode::usage,
                  fmt::format("{}: {} of {} bytes were written", what_, end, size_));
    }
    rename_all(keys_under(connection_, key_, what_));
    parts_.clear();
  }

  void abort() noexcept override {
    try {
      std::string commands;
      for (const auto& [offset, size] : parts_) {
        const std::string name = partial_key(offset);
        resp::append(commands, {"UNLINK", name});
      }
      if (!parts_.empty()) connection_.ask(commands, parts_.size());
    } catch (...) {
      // The server is gone: what it still has expires.
    }
    parts_.clear();
  }

 private:
  // "header" and "part" are for readers: offsets are what counts.
  [[nodiscard]] static std::string ending(uint64_t offset) {
    return offset == 0 ? ":header:0" : fmt::format(":part:{}", offset);
  }
  [[nodiscard]] std::string partial_key(uint64_t offset) const { return partial_ + ending(offset); }

  void rename_all(const std::vector<std::string>& old) {
    std::string commands;
    resp::append(commands, {"MULTI"});
    for (const std::string& key : old) resp::append(commands, {"UNLINK", key});
    for (const auto& [offset, size] : parts_) {
      const std::string name = key_ + ending(offset);
      const std::string partial = partial_key(offset);
      resp::append(commands, {"RENAME", partial, name});
      resp::append(commands, {"PERSIST", name});
    }
    resp::append(commands, {"EXEC"});
    const size_t steps = old.size() + 2 * parts_.size();
    const auto replies = connection_.ask(commands, steps + 2);
    const resp::Reply& done = replies.back();
    if (done.kind != resp::Kind::array) throw redis_error(what_, done);
    for (const resp::Reply& step : done.elements) {
      if (step.kind == resp::Kind::error) throw redis_error(what_, step);
    }
  }

  std::string key_;
  std::string what_;
  RedisConnection connection_;
  std::string partial_;
  uint64_t size_ = 0;
  std::map<uint64_t, uint64_t> parts_;  // offset -> size
};

}  // namespace

std::unique_ptr<Writer> write_redis(const std::string& uri, const StorageOptions& options) {
  return std::make_unique<RedisWriter>(redis_place(uri, options));
}

void remove_redis(const std::string& uri, const StorageOptions& options) {
  const RedisPlace place = redis_place(uri, options);
  const std::string what = fmt::format("remove {}/{}", place.shown, place.key);
  RedisConnection connection(place, what);
  const std::vector<std::string> keys = keys_under(connection, place.key, what);
  resp::Words words{"UNLINK"};
  words.insert(words.end(), keys.begin(), keys.end());
  connection.ask(words);
}

}  // namespace inrush
