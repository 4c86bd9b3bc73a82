// GETRANGE, pipelined on one connection: commands go out as reads come in, and the bytes of each
// reply are received straight into the read's memory. No thread of its own.
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <unordered_map>

#include "inrush/base/align.h"
#include "inrush/core/quoted.h"
#include "inrush/engines/retry.h"
#include "inrush/engines/rows.h"
#include "inrush/engines/submission.h"
#include "inrush/engines/wake.h"
#include "inrush/wire/redis.h"

namespace inrush {
namespace {

constexpr uint64_t kLargestRead = 64 * kMiB;
constexpr uint32_t kMostAsked = 256;
constexpr size_t kLineBuffer = 4 * kKiB;

bool same_place(const RedisPlace& a, const RedisPlace& b) {
  return a.shown == b.shown && a.database == b.database && a.user == b.user &&
         a.password == b.password;
}

class RedisEngine final : public Engine {
 public:
  explicit RedisEngine(const EngineOptions& options) : wake_(options.wake_fd) {}

  [[nodiscard]] EngineTraits traits() const override {
    EngineTraits traits;
    traits.name = "redis";
    traits.largest_read = kLargestRead;
    traits.most_in_flight = kMostAsked;
    return traits;
  }

  uint32_t open(const Blob& blob) override {
    if (!blobs_.empty() && !same_place(redis_file(blobs_.front()).place, redis_file(blob).place)) {
      throw Error(ErrorCode::source,
                  fmt::format("open {}: this lane is connected to another server, database or "
                              "user, for {}",
                              blob.name, blobs_.front().name));
    }
    if (!connection_) connect(blob);
    blobs_.push_back(blob);
    return static_cast<uint32_t>(blobs_.size() - 1);
  }

  void attach(const Region& /*region*/) override {}

  void submit(std::span<const Read> reads) override {
    check_room(traits(), reads.size(), flights_.size());
    check_reads(traits(), reads, blobs_.size());
    if (expected_.empty()) heard_ = Clock::now();
    for (const Read& read : reads) accept(read);
    pump();
  }

  size_t wait(std::span<Completion> done, Deadline deadline) override {
    for (;;) {
      const bool rang = wake_.take();
      pump();
      const size_t count = std::min(done.size(), completed_.size());
      for (size_t i = 0; i < count; ++i) {
        done[i] = std::move(completed_.front());
        completed_.pop_front();
      }
      if (count > 0 || rang || Clock::now() >= deadline) return count;
      if (!connection_ || expected_.empty()) {
        wake_.sleep(deadline);
        continue;
      }
      const bool sending = sent_ < commands_.size();
      const auto events = static_cast<short>(POLLIN | (sending ? POLLOUT : 0));
      wait_for(connection_->stream().fd(), events, wake_.fd(),
               std::min(deadline, heard_ + patience_));
    }
  }

  void cancel() override {
    cancelled_ = true;
    wake_.ring();
  }

 private:
  struct Flight {
    Read read;
    size_t parts = 0;  // that are still to come
    std::optional<Error> error;
  };
  // A reply that is due, in the order of commands.
  struct Due {
    uint64_t flight = 0;
    RedisPart part;
    std::byte* target = nullptr;
  };

  void connect(const Blob& blob) {
    patience_ = redis_file(blob).place.patience;
    connection_.emplace(redis_file(blob).place, fmt::format("read {} via redis", blob.name));
    commands_.clear();
    sent_ = begin_ = end_ = 0;
    taking_ = 0;
    ending_ = needs_more_ = false;
    heard_ = Clock::now();
  }

  [[nodiscard]] Error error(const Read& read, ErrorCode code, const std::string& why) const {
    return {code, fmt::format("read {} [{}, +{}) via redis: {}", blobs_[read.file].name,
                              read.offset, read.size, why)};
  }

  void complete(const Read& read, std::optional<Error> why) {
    completed_.push_back({read.tag, std::move(why)});
  }

  void accept(const Read& read) {
    const Blob& blob = blobs_.at(read.file);
    const uint64_t left = blob.size - std::min(blob.size, read.offset);
    const uint64_t size = std::min(read.size, left);
    if (size < read.required) {
      return complete(read,
                      error(read, ErrorCode::data, fmt::format("it ends at byte {}", blob.size)));
    }
    if (cancelled_) return complete(read, Error(ErrorCode::cancelled, "the read was cancelled"));
    try {
      if (!connection_) connect(blob);
    } catch (const Error& refused) {
      return complete(read, refused);
    }
    const auto parts = parts_of(redis_file(blob), read.offset, size);
    if (parts.empty()) return complete(read, std::nullopt);
    const uint64_t id = next_flight_++;
    flights_.emplace(id, Flight{read, parts.size(), std::nullopt});
    std::byte* target = read.target;
    for (const RedisPart& part : parts) {
      append_get(commands_, part);
      expected_.push_back({id, part, target});
      target += part.size;
    }
  }

  // Sends and receives what can be without waiting. Whatever ends the connection ends all reads.
  void pump() {
    if (cancelled_) return give_up(Error(ErrorCode::cancelled, "the read was cancelled"));
    if (!connection_ || expected_.empty()) return;
    try {
      while (sent_ < commands_.size()) {
        const size_t sent =
            connection_->stream().write(std::as_bytes(std::span(commands_)).subspan(sent_));
        if (sent == 0) break;
        sent_ += sent;
      }
      if (sent_ == commands_.size()) {
        commands_.clear();
        sent_ = 0;
      }
      while (!expected_.empty() && receive()) heard_ = Clock::now();
      if (!expected_.empty() && Clock::now() - heard_ > patience_) {
        throw Error(ErrorCode::source, "no byte came for " + seconds_text(patience_));
      }
    } catch (const Error& failure) {
      give_up(failure);
    }
  }

  // One step; false where it would block.
  bool receive() {
    if (taking_ > 0 && begin_ == end_) {
      const size_t got = connection_->stream().read({at_, taking_});
      at_ += got;
      taking_ -= got;
      return got > 0;
    }
    if (begin_ == end_ || needs_more_) {
      std::memmove(line_.data(), line_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
      if (end_ == line_.size()) throw Error(ErrorCode::data, "a line without an end");
      const size_t got = connection_->stream().read(std::span(line_).subspan(end_));
      end_ += got;
      needs_more_ = needs_more_ && got == 0;
      return got > 0;
    }
    if (taking_ > 0) {
      const size_t there = std::min(taking_, end_ - begin_);
      std::memcpy(at_, line_.data() + begin_, there);
      begin_ += there;
      at_ += there;
      taking_ -= there;
      return true;
    }
    return ending_ ? take_end() : take_head();
  }

  bool take_end() {
    if (end_ - begin_ < 2) return needs_more_ = true;
    if (line_[begin_] != std::byte{'\r'} || line_[begin_ + 1] != std::byte{'\n'}) {
      throw Error(ErrorCode::data, "a value does not end where it should");
    }
    begin_ += 2;
    ending_ = false;
    part_done(std::nullopt);
    return true;
  }

  bool take_head() {
    const auto* text = reinterpret_cast<const char*>(line_.data() + begin_);
    const auto head = resp::parse_head({text, end_ - begin_});
    if (!head) return needs_more_ = true;
    begin_ += head->size;
    const Due& due = expected_.front();
    const Flight& flight = flights_.at(due.flight);
    if (head->kind != resp::Kind::bulk) {
      const std::string why = head->kind == resp::Kind::error ? head->text : "no value came";
      part_done(error(flight.read, ErrorCode::source, why));
      return true;
    }
    const auto size = static_cast<uint64_t>(head->number);
    if (size > due.part.size) throw Error(ErrorCode::data, "more bytes came than were asked for");
    if (size < due.part.size) {
      flights_.at(due.flight).error =
          error(flight.read, ErrorCode::data,
                fmt::format("key {} gave {} of {} bytes: it was cut or removed",
                            quoted(due.part.segment->key), size, due.part.size));
    }
    at_ = due.target;
    taking_ = size;
    ending_ = true;
    return true;
  }

  void part_done(std::optional<Error> why) {
    const auto found = flights_.find(expected_.front().flight);
    expected_.pop_front();
    Flight& flight = found->second;
    if (why && !flight.error) flight.error = std::move(why);
    if (--flight.parts > 0) return;
    complete(flight.read, std::move(flight.error));
    flights_.erase(found);
  }

  // The connection is closed first: from then on nothing writes to the memory of these reads.
  void give_up(const Error& why) {
    connection_.reset();
    expected_.clear();
    for (const auto& [id, flight] : flights_) {
      complete(flight.read, why.code() == ErrorCode::cancelled
                                ? why
                                : error(flight.read, why.code(), why.message()));
    }
    flights_.clear();
  }

  Wake wake_;
  std::atomic<bool> cancelled_{false};
  std::vector<Blob> blobs_;
  std::optional<RedisConnection> connection_;
  std::unordered_map<uint64_t, Flight> flights_;
  uint64_t next_flight_ = 0;
  std::deque<Due> expected_;
  std::deque<Completion> completed_;
  Clock::time_point heard_{};
  std::chrono::milliseconds patience_{0};  // without a byte

  std::string commands_;
  size_t sent_ = 0;

  std::array<std::byte, kLineBuffer> line_{};  // received, and not yet taken: [begin_, end_)
  size_t begin_ = 0;
  size_t end_ = 0;
  bool needs_more_ = false;
  std::byte* at_ = nullptr;  // where the bytes of the current value go
  size_t taking_ = 0;        // how many are to come
  bool ending_ = false;      // then CRLF
};

}  // namespace

std::unique_ptr<Engine> make_redis(const EngineOptions& options) {
  return std::make_unique<RetryEngine>(std::make_unique<RedisEngine>(options), RetryOptions{});
}

}  // namespace inrush
