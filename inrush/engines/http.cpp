// Ranged requests on many connections of libcurl, driven by the lane's own thread inside wait().
// Bytes go from libcurl's buffer straight to where the read wants them. A request that fails on the
// way is asked for again from the byte it came to; beside one that is silent a second is sent on a
// new connection, and the first of the two to bring a byte goes on alone, so that at any time one
// of them may write.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

#include "inrush/engines/rows.h"
#include "inrush/engines/submission.h"
#include "inrush/engines/wake.h"
#include "inrush/net/attempts.h"
#include "inrush/net/object.h"
#include "inrush/net/transfer.h"

namespace inrush {
namespace {

// A connection that was so much slower than usual for so long is dropped for another.
constexpr double kDrips = 0.1;
constexpr double kLeastRate = 16 << 10;  // bytes a second, where nothing is usual yet
constexpr std::chrono::seconds kDripTime{4};
// A second request is sent once a first one was silent for so many usual times to the first byte.
constexpr int kSilences = 4;
constexpr double kSmooth = 0.2;  // of a new value in a moving average

// One read on its way.
struct Flight {
  Read read;
  uint64_t size = 0;  // of the read, without what is past the blob's end
  uint64_t done = 0;  // bytes in place, before what `main` brings
  Attempts attempts;
  std::unique_ptr<Transfer> main{};    // none while it waits to be asked for again
  std::unique_ptr<Transfer> second{};  // asked for the same from where main fell silent
  Transfer* winner = nullptr;          // of the two, that brought a byte first
  Deadline again_at{};
  Clock::time_point sent_at{};
  Clock::time_point heard_at{};  // of the last byte, or sent_at
  uint64_t heard = 0;            // of main
  Clock::time_point paced_at{};  // since when main brought more than `paced`
  uint64_t paced = 0;
  uint32_t retries = 0;
  uint32_t hedges = 0;
  bool over = false;
};

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

class HttpEngine final : public Engine {
 public:
  explicit HttpEngine(const EngineOptions& options)
      : curl_(load_curl()), wake_(options.wake_fd), multi_(nullptr, curl_.multi_cleanup) {
    traits_.name = "http";
    traits_.most_in_flight = std::max(options.depth, 1U);
  }

  ~HttpEngine() override {
    for (auto& [tag, flight] : flights_) land(flight);
    if (client_) client_->give_back(std::move(multi_));
  }
  HttpEngine(const HttpEngine&) = delete;
  HttpEngine& operator=(const HttpEngine&) = delete;

  [[nodiscard]] EngineTraits traits() const override { return traits_; }

  uint32_t open(const Blob& blob) override {
    const HttpObject& object = object_of(blob);
    if (!client_) {
      multi_ = object.client->borrow_multi();
      client_ = object.client;
    }
    // Beyond it requests wait inside libcurl, and look silent: hedging knows of it.
    most_connections_ = object.client->options().connections;
    const auto set = [&](CURLMoption option, long value) {
      curl_.multi_setopt(multi_.get(), option, value);
    };
    // A connection for each request: many streams on one would share its congestion window.
    set(CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    set(CURLMOPT_MAXCONNECTS, static_cast<long>(traits_.most_in_flight) + 2);
    set(CURLMOPT_MAX_HOST_CONNECTIONS, static_cast<long>(most_connections_));
    object.forget_head();
    blobs_.push_back(blob);
    return static_cast<uint32_t>(blobs_.size() - 1);
  }

  void attach(const Region& /*region*/) override {}

  void submit(std::span<const Read> reads) override {
    check_room(traits_, reads.size(), flights_.size() + completed_.size());
    check_reads(traits_, reads, blobs_.size());
    for (const Read& read : reads) {
      if (read.offset >= blobs_[read.file].size) throw refused(traits_, read, "it is past the end");
    }
    for (const Read& read : reads) begin(take(read), false);
  }

  size_t wait(std::span<Completion> done, Deadline deadline) override {
    for (;;) {
      const bool rang = wake_.take();
      if (cancelled_) cancel_all();
      if (client_) turn();
      const size_t count = collect(done);
      const Clock::time_point now = Clock::now();
      if (count > 0 || rang || now >= deadline) return count;
      if (!client_) {
        wake_.sleep(deadline);
        continue;
      }
      curl_waitfd extra{wake_.fd(), CURL_WAIT_POLLIN, 0};
      const auto left = std::min<Clock::duration>(deadline - now, flights_.empty() ? kLong : kTick);
      const auto pause = std::chrono::ceil<std::chrono::milliseconds>(left);
      curl_.multi_poll(multi_.get(), &extra, 1, static_cast<int>(pause.count()), nullptr);
    }
  }

  void cancel() override {
    cancelled_ = true;
    wake_.ring();
  }

 private:
  // How often time limits are looked at.
  static constexpr std::chrono::milliseconds kTick{20};
  static constexpr std::chrono::hours kLong{1};
  // Who has not looked for so long stood still.
  static constexpr std::chrono::seconds kAway{1};

  [[nodiscard]] const HttpObject& object(const Read& read) const {
    return object_of(blobs_[read.file]);
  }

  Flight& take(const Read& read) {
    const Blob& blob = blobs_[read.file];
    const HttpObject& content = object(read);
    const uint64_t size = std::min(read.size, blob.size - read.offset);
    std::string what = fmt::format("read {} [{}, +{}) via http", blob.name, read.offset, size);
    Attempts attempts(std::move(what), content.home, content.client->options().patience);
    attempts.begin_at(content.url());
    Flight flight{.read = read, .size = size, .attempts = std::move(attempts)};
    return flights_.emplace(read.tag, std::move(flight)).first->second;
  }

  // One round of libcurl, of what it has ended, and of what time has come for.
  void turn() {
    int running = 0;
    const CURLMcode code = curl_.multi_perform(multi_.get(), &running);
    if (code != CURLM_OK) {
      throw Error(ErrorCode::memory, fmt::format("libcurl: {}", curl_.multi_strerror(code)));
    }
    for (auto& [tag, flight] : flights_) settle_hedge(flight);
    int left = 0;
    while (const CURLMsg* message = curl_.multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode result = message->data.result;
      // Those that were dropped are not in it any more.
      const auto owner = owners_.find(message->easy_handle);
      if (owner != owners_.end()) ended(*owner->second, message->easy_handle, result);
    }
    const Clock::time_point now = Clock::now();
    const Clock::duration away = now - std::exchange(looked_at_, now);
    for (auto& [tag, flight] : flights_) {
      if (flight.over) continue;
      if (away > kAway) pardon(flight, away, now);
      watch(flight, now);
    }
    std::erase_if(flights_, [](const auto& one) { return one.second.over; });
  }

  // This process or the whole machine stood still: nobody's silence is counted from before that.
  static void pardon(Flight& flight, Clock::duration away, Clock::time_point now) {
    flight.attempts.pardon(std::min(away, now - flight.sent_at));
    flight.heard_at = flight.paced_at = now;
    if (flight.main) flight.paced = flight.main->received();
  }

  EasyHandle idle_handle(const Client& client) {
    if (idle_.empty()) return client.borrow();
    EasyHandle handle = std::move(idle_.back());
    idle_.pop_back();
    client.settle(handle.get());
    return handle;
  }

  std::unique_ptr<Transfer> send(Flight& flight, uint64_t from, bool fresh) {
    const HttpObject& content = object(flight.read);
    const Url& url = flight.attempts.url();
    const uint64_t offset = flight.read.offset + from;
    const uint64_t size = flight.size - from;
    const HttpRequest request = range_request(content, url, offset, size);
    auto transfer = std::make_unique<Transfer>(idle_handle(*content.client));
    transfer->prepare_range(request, {offset, size, content.expected()}, flight.read.target + from);
    if (url.origin() != content.home.origin()) transfer->distrust();
    if (fresh) transfer->use_fresh_connection();
    // Silence is dealt with here.
    curl_.easy_setopt(transfer->easy(), CURLOPT_LOW_SPEED_TIME, 0L);
    transfer->gate = [&flight, self = transfer.get()] {
      if (!flight.second) return true;
      if (flight.winner == nullptr) flight.winner = self;
      return flight.winner == self;
    };
    owners_.emplace(transfer->easy(), &flight);
    curl_.multi_add_handle(multi_.get(), transfer->easy());
    return transfer;
  }

  void begin(Flight& flight, bool fresh) {
    flight.sent_at = flight.heard_at = flight.paced_at = Clock::now();
    flight.heard = flight.paced = 0;
    try {
      flight.main = send(flight, flight.done, fresh);
    } catch (const Error& error) {
      // Credentials that are not to be had end the read, not the lane.
      finish(flight,
             Error(error.code(), fmt::format("{}: {}", flight.attempts.what(), error.message())));
    }
  }

  void drop(std::unique_ptr<Transfer>& transfer) {
    if (!transfer) return;
    owners_.erase(transfer->easy());
    curl_.multi_remove_handle(multi_.get(), transfer->easy());
    idle_.push_back(transfer->release());
    transfer.reset();
  }

  void land(Flight& flight) {
    drop(flight.second);
    drop(flight.main);
  }

  void finish(Flight& flight, std::optional<Error> error) {
    land(flight);
    flight.over = true;
    completed_.push_back({.tag = flight.read.tag,
                          .error = std::move(error),
                          .retries = flight.retries,
                          .hedges = flight.hedges});
  }

  // All bytes are in place.
  void complete(Flight& flight) {
    land(flight);
    std::optional<Error> error;
    try {
      const auto& sum = object(flight.read).sum;
      if (sum) sum->add(flight.read.offset, {flight.read.target, flight.size});
    } catch (const Error& one) {
      error = Error(one.code(), fmt::format("{}: {}", flight.attempts.what(), one.message()));
    }
    finish(flight, std::move(error));
  }

  // The loser of the two goes before it could write again.
  void settle_hedge(Flight& flight) {
    if (flight.winner == nullptr) return;
    if (flight.winner == flight.second.get()) {
      promote(flight);
    } else {
      drop(flight.second);
    }
    flight.winner = nullptr;
  }

  void promote(Flight& flight) {
    flight.done += flight.main->received();
    drop(flight.main);
    flight.main = std::move(flight.second);
    flight.heard = flight.paced = 0;
  }

  void ended(Flight& flight, CURL* easy, CURLcode code) {
    if (flight.second && easy == flight.second->easy()) {
      drop(flight.second);  // main may still come
      return;
    }
    const Verdict verdict = flight.main->verdict(code);
    const uint64_t received = flight.main->received();
    if (received > 0) flight.attempts.progressed(Clock::now());
    if (flight.second && verdict.kind == Verdict::Kind::again) {
      promote(flight);
      return;
    }
    if (verdict.kind == Verdict::Kind::done) {
      object(flight.read).learn(flight.main->head());
      learn(flight, received);
      complete(flight);
      return;
    }
    flight.done += received;
    land(flight);
    decide(flight, verdict);
  }

  void learn(const Flight& flight, uint64_t received) {
    const double rate =
        static_cast<double>(received) / std::max(seconds(Clock::now() - flight.sent_at), 1e-6);
    usual_rate_ += (usual_rate_ == 0 ? 1 : kSmooth) * (rate - usual_rate_);
  }

  // The request is over, and the read is not.
  void decide(Flight& flight, const Verdict& verdict) {
    try {
      flight.again_at = flight.attempts.next(verdict, Clock::now());
    } catch (const Error& error) {
      finish(flight, error);
      return;
    }
    if (verdict.kind == Verdict::Kind::again) {
      ++flight.retries;
      return;
    }
    object(flight.read).move_to(flight.attempts.url());
    begin(flight, false);
  }

  void watch(Flight& flight, Clock::time_point now) {
    if (!flight.main) {
      if (now >= flight.again_at) begin(flight, flight.attempts.tries() > 1);
      return;
    }
    if (flight.main->heard() != flight.heard) {
      if (flight.heard == 0) {
        const double first = seconds(now - flight.sent_at);
        usual_first_ += (usual_first_ == 0 ? 1 : kSmooth) * (first - usual_first_);
      }
      flight.heard = flight.main->heard();
      flight.heard_at = now;
      if (flight.main->received() > 0) flight.attempts.progressed(now);
    }
    // A server that says no more after the last byte has said enough.
    if (flight.done + flight.main->received() == flight.size) {
      complete(flight);
      return;
    }
    if (now >= flight.attempts.deadline()) {
      finish(flight, Error(ErrorCode::source,
                           fmt::format("{}: nothing came for {:.0f} s", flight.attempts.what(),
                                       seconds(now - flight.heard_at))));
      return;
    }
    const auto patience =
        std::max(std::chrono::duration<double>(kSilences * usual_first_),
                 std::chrono::duration<double>(object(flight.read).client->options().hedge)) *
        (1 << std::min(flight.hedges, 6U));
    const bool connected = flights_.size() <= most_connections_;
    if (now - flight.heard_at > patience && connected) {
      hedge(flight);
    } else if (now - flight.paced_at > kDripTime) {
      pace(flight, now);
    }
  }

  // Beside a silent request another one; where one is already, it is the older that goes.
  void hedge(Flight& flight) {
    ++flight.hedges;
    if (flight.second) promote(flight);
    flight.heard_at = Clock::now();
    const uint64_t from = flight.done + flight.main->received();
    try {
      flight.second = send(flight, from, true);
    } catch (const Error&) {
      // Not to be had now: the first one may still answer.
    }
  }

  void pace(Flight& flight, Clock::time_point now) {
    const uint64_t received = flight.main->received();
    const double rate =
        static_cast<double>(received - flight.paced) / seconds(now - flight.paced_at);
    flight.paced = received;
    flight.paced_at = now;
    if (flight.second || received == 0 || rate > std::max(kDrips * usual_rate_, kLeastRate)) return;
    flight.done += received;
    ++flight.retries;
    drop(flight.main);
    begin(flight, true);
  }

  void cancel_all() {
    for (auto& [tag, flight] : flights_) {
      if (!flight.over) finish(flight, Error(ErrorCode::cancelled, "the read was cancelled"));
    }
    std::erase_if(flights_, [](const auto& one) { return one.second.over; });
  }

  size_t collect(std::span<Completion> done) {
    const size_t count = std::min(done.size(), completed_.size());
    std::move(completed_.begin(), completed_.begin() + static_cast<ptrdiff_t>(count), done.begin());
    completed_.erase(completed_.begin(), completed_.begin() + static_cast<ptrdiff_t>(count));
    return count;
  }

  const Curl& curl_;
  Wake wake_;
  std::shared_ptr<const Client> client_;  // of the first blob, whose connections they are
  MultiHandle multi_;
  EngineTraits traits_;
  std::vector<Blob> blobs_;
  std::vector<EasyHandle> idle_;                  // outlives the transfers below
  std::unordered_map<uint64_t, Flight> flights_;  // by tag
  std::unordered_map<CURL*, Flight*> owners_;
  std::deque<Completion> completed_;
  std::atomic<bool> cancelled_{false};
  uint32_t most_connections_ = 1;
  Clock::time_point looked_at_ = Clock::now();
  double usual_first_ = 0;  // seconds to the first byte of an answer
  double usual_rate_ = 0;   // bytes a second of one connection
};

}  // namespace

std::unique_ptr<Engine> make_http(const EngineOptions& options) {
  return std::make_unique<HttpEngine>(options);
}

}  // namespace inrush
