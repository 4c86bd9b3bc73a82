#include "inrush/load/lane.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/engines/engines.h"

namespace inrush {
namespace {

constexpr auto kWaitSlice = std::chrono::milliseconds(50);
constexpr size_t kMostCompletions = 64;

class Lane {
 public:
  Lane(Board& board, const LaneChoice& choice, uint32_t number)
      : board_(board),
        choice_(choice),
        number_(number),
        name_(fmt::format("{}{} {}", choice.engine, choice.direct ? " direct" : "", number)),
        governor_({choice.depth, std::max(choice.depth, choice.most_depth), 1}),
        wake_(make_eventfd()) {
    board_.lane_began(wake_.get());
  }

  ~Lane() {
    engine_.reset();
    board_.lane_ended(wake_.get());
  }

  void run() {
    try {
      start_engine();
      while (!board_.stopped() && !(retired() && flights_.empty())) step();
    } catch (const Error& error) {
      board_.lane_failed(error, choice_);
    } catch (const std::exception& error) {
      board_.fail(Error(ErrorCode::memory, fmt::format("lane {}: {}", name_, error.what())));
    }
    drain();
  }

 private:
  struct Flight {
    Grant grant;
    double start;
  };

  // Streams that all begin with the load begin as far apart as can be.
  [[nodiscard]] uint32_t first_of_share() const {
    if (!choice_.sequential || number_ >= choice_.count) return UINT32_MAX;
    const auto ranges = static_cast<uint32_t>(board_.preparation().plan.ranges.size());
    const uint32_t wanted = std::min(ranges, board_.horizon());
    return number_ * ((wanted + choice_.count - 1) / choice_.count);
  }

  void start_engine() {
    next_ = first_of_share();
    EngineOptions options;
    options.direct = choice_.direct;
    options.depth = std::max(choice_.depth, choice_.most_depth);
    options.wake_fd = wake_.get();
    options.block_size = choice_.block_size;
    options.source = choice_.source;
    options.on_lane = choice_.on_lane;
    // The stream that the far end began for the header then goes on.
    if (choice_.sequential) options.lent = board_.preparation().lent;
    options.keep_pages = board_.preparation().options.choice.page_cache == PageCache::keep;
    const EngineFactory& factory = board_.preparation().options.engines;
    if (factory) {
      engine_ = factory(choice_.engine, options);
    } else {
      const EngineRow* row = find_engine(choice_.engine);
      if (row == nullptr) {
        throw Error(ErrorCode::usage, fmt::format("no engine is named {}", choice_.engine));
      }
      engine_ = row->make(options);
    }
    for (const Region& region : board_.sink().layout().regions) engine_->attach(region);
    most_in_flight_ = engine_->traits().most_in_flight;
  }

  [[nodiscard]] bool retired() const {
    return (choice_.direct && board_.direct_retired()) || board_.sources().given_up(choice_.source);
  }

  [[nodiscard]] bool mirrored() const { return board_.sources().count() > 1; }

  void step() {
    clear_rings(wake_.get());
    fill();
    if (flights_.empty()) {
      rest();
      return;
    }
    std::array<Completion, kMostCompletions> done;
    const size_t count = engine_->wait(done, Clock::now() + kWaitSlice);
    for (size_t i = 0; i < count; ++i) settle(done[i]);
    board_.collect_placed(choice_.on_lane);
    if (number_ == 0) look_around();
  }

  // Nothing to do for now: until ranges come back, the budget frees, or the load ends.
  void rest() {
    const double before = board_.seconds_since_start();
    pollfd wake{wake_.get(), POLLIN, 0};
    ::poll(&wake, 1, static_cast<int>(kWaitSlice.count()));
    board_.collect_placed(choice_.on_lane);
    if (starved_) board_.count_budget_wait(board_.seconds_since_start() - before);
    if (number_ == 0) look_around();
  }

  [[nodiscard]] bool paused() const {
    return choice_.sequential && number_ >= board_.preparation().choice.lanes.front().count &&
           number_ >= board_.counts().streams;
  }

  void fill() {
    // Rung for or not: it looks again now, and what becomes free is for those who wait.
    starved_ = false;
    delist();
    if (retired() || paused()) return;
    if (mirrored() && board_.sources().silent(choice_.source)) return;
    batch_.clear();
    const uint32_t target = std::min(governor_.target(), most_in_flight_);
    try {
      while (flights_.size() < target && repeat_one(false)) {
      }
      while (flights_.size() < target && within_share() && take_one()) {
      }
      while (flights_.size() < target && !starved_ && repeat_one(true)) {
      }
      if (batch_.empty()) return;
      engine_->submit(batch_);
    } catch (...) {
      take_back_batch();
      throw;
    }
    if (!starved_) delist();
    board_.counts().depth = target;
  }

  // The engine took none of them, or a file of theirs could not be opened.
  void take_back_batch() {
    for (const Read& read : batch_) {
      const Grant grant = flights_.at(read.tag).grant;
      flights_.erase(read.tag);
      board_.counts().in_flight -= static_cast<int64_t>(grant.size);
      board_.sources().lost(choice_.source, grant.first);
      if (board_.sink().release(grant)) board_.queue().give_back({grant.first, grant.count});
    }
  }

  void delist() {
    if (std::exchange(listed_, false)) board_.waiting().remove(wake_.get());
  }

  // What another source is too slow or too silent with; `idle`: the queue has nothing for us.
  bool repeat_one(bool idle) {
    if (!mirrored()) return false;
    const std::optional<uint32_t> range = board_.sources().overdue(choice_.source, idle);
    if (!range) return false;
    const uint32_t file = file_of(board_.preparation().plan.ranges[*range].blob);
    const auto grant = board_.sink().try_reserve(*range, 1, engine_->traits(), true);
    if (!grant) {
      board_.sources().not_repeated(*range);
      return false;
    }
    add_to_batch(*grant, file);
    return true;
  }

  // All lanes of a source share what it may have in flight.
  [[nodiscard]] bool within_share() const {
    if (!mirrored()) return true;
    const uint32_t share = board_.sources().share(choice_.source, board_.queue().left());
    return board_.sources().in_flight(choice_.source) < share;
  }

  void add_to_batch(const Grant& grant, uint32_t file) {
    const uint64_t tag = next_tag_++;
    flights_.emplace(tag, Flight{grant, board_.seconds_since_start()});
    board_.counts().in_flight += static_cast<int64_t>(grant.size);
    batch_.push_back({tag, file, grant.offset, grant.size, grant.required, grant.target});
    board_.sources().asked(choice_.source, grant.first, grant.hedge);
  }

  // Takes and reserves one read; false if there is none for now.
  bool take_one() {
    if (take_one(choice_.sequential)) return true;
    // What a stream would read next may find no room as long as the consumer waits for something
    // before it, and for that there is room always.
    const bool stuck = starved_ && choice_.sequential && flights_.empty();
    if (!stuck || !take_one(false)) return false;
    starved_ = false;
    return true;
  }

  std::optional<Run> take_run(bool sequential) {
    const uint64_t range_size = board_.preparation().options.limits.range_size;
    Appetite appetite;
    appetite.coverage = choice_.coverage;
    appetite.most = static_cast<uint32_t>(std::max<uint64_t>(choice_.block_size / range_size, 1));
    appetite.sequential = sequential;
    appetite.next = next_;
    appetite.horizon = board_.horizon();
    std::optional<Run> run = board_.queue().take(appetite);
    if (run || !flights_.empty() || board_.queue().empty(choice_.coverage)) return run;
    // All that is left lies beyond the horizon, which may have moved before this is said.
    listed_ = true;
    board_.waiting().ahead(wake_.get(), appetite.horizon);
    appetite.horizon = board_.horizon();
    return board_.queue().take(appetite);
  }

  bool take_one(bool sequential) {
    const std::optional<Run> run = take_run(sequential);
    if (!run) return false;
    std::optional<Grant> grant;
    uint32_t file = 0;
    const uint32_t blob = board_.preparation().plan.ranges[run->first].blob;
    try {
      file = file_of(blob);
      grant = board_.sink().try_reserve(run->first, run->count, engine_->traits(), false);
      if (!grant) {
        listed_ = true;
        board_.waiting().starve(wake_.get());
        // What became free before that was said woke nobody.
        grant = board_.sink().try_reserve(run->first, run->count, engine_->traits(), false);
      }
    } catch (const Error& error) {
      board_.queue().give_back(*run);
      if (!choice_.picks_files || error.code() != ErrorCode::source) throw;
      board_.refuse_file(blob, error, choice_);
      return true;
    } catch (...) {
      board_.queue().give_back(*run);
      throw;
    }
    if (!grant) {
      board_.queue().give_back(*run);
      starved_ = true;
      return false;
    }
    if (grant->count < run->count) {
      board_.queue().give_back({run->first + grant->count, run->count - grant->count});
    }
    next_ = run->first + grant->count;
    add_to_batch(*grant, file);
    return true;
  }

  uint32_t file_of(uint32_t blob) {
    const auto known = files_.find(blob);
    if (known != files_.end()) return known->second;
    const uint32_t file = engine_->open(board_.sources().blob(choice_.source, blob));
    files_.emplace(blob, file);
    return file;
  }

  void settle(const Completion& completion) {
    const auto found = flights_.find(completion.tag);
    if (found == flights_.end()) return;
    const Flight flight = found->second;
    flights_.erase(found);
    const Grant& grant = flight.grant;
    board_.counts().in_flight -= static_cast<int64_t>(grant.size);
    board_.sources().repeated(choice_.source, completion.retries, completion.hedges);
    if (completion.error) {
      if (board_.stopped()) {
        board_.sink().release(grant);
      } else {
        board_.read_failed(grant, *completion.error, choice_);
      }
      return;
    }
    const uint32_t blob = board_.preparation().plan.ranges[grant.first].blob;
    board_.sources().came(choice_.source, grant.first, grant.required, blob);
    // Before the last tensor is whole: who waited for that finds the pages gone.
    board_.drop_pages(grant, choice_);
    board_.sink().landed(grant);
    governor_.delivered(grant.required, Clock::now());
    if (choice_.sequential) board_.streamed(grant.required);
    if (board_.preparation().options.trace) {
      board_.add({name_, board_.sources().blob(choice_.source, blob).name, grant.offset,
                  grant.required, flight.start, board_.seconds_since_start(), "read",
                  choice_.source, completion.retries, completion.hedges});
    }
  }

  void look_around() {
    const Clock::time_point now = Clock::now();
    if (now < next_look_) return;
    next_look_ = now + kWaitSlice;
    board_.look_around();
  }

  // Until the last read is reaped, however long the kernel holds it: the memory must stay.
  void drain() {
    if (flights_.empty() || !engine_) return;
    engine_->cancel();
    while (!flights_.empty()) {
      std::array<Completion, kMostCompletions> done;
      clear_rings(wake_.get());
      const size_t count = engine_->wait(done, Clock::now() + kWaitSlice);
      for (size_t i = 0; i < count; ++i) {
        const auto found = flights_.find(done[i].tag);
        if (found == flights_.end()) continue;
        const Grant grant = found->second.grant;
        flights_.erase(found);
        board_.counts().in_flight -= static_cast<int64_t>(grant.size);
        if (!done[i].error) {
          const uint32_t blob = board_.preparation().plan.ranges[grant.first].blob;
          board_.sources().came(choice_.source, grant.first, grant.required, blob);
          board_.drop_pages(grant, choice_);
          board_.sink().landed(grant);
        } else if (board_.stopped()) {
          board_.sink().release(grant);
        } else {
          board_.read_failed(grant, *done[i].error, choice_);
        }
      }
    }
    board_.collect_placed(choice_.on_lane);
  }

  Board& board_;
  const LaneChoice choice_;
  const uint32_t number_;
  const std::string name_;
  Governor governor_;
  Fd wake_;
  std::unique_ptr<Engine> engine_;
  uint32_t most_in_flight_ = 1;
  std::unordered_map<uint32_t, uint32_t> files_;  // blob -> the engine's number of it
  std::unordered_map<uint64_t, Flight> flights_;  // by tag
  std::vector<Read> batch_;
  uint64_t next_tag_ = 1;
  uint32_t next_ = UINT32_MAX;
  bool starved_ = false;  // the budget had no room
  bool listed_ = false;   // among those that the board rings for
  Clock::time_point next_look_{};
};

}  // namespace

void run_lane(const std::shared_ptr<Board>& board, const LaneChoice& choice,
              uint32_t number) noexcept {
  try {
    Lane(*board, choice, number).run();
  } catch (const Error& error) {
    board->lane_failed(Error(error.code(), "start a lane: " + error.message()), choice);
  } catch (const std::exception& error) {
    board->fail(Error(ErrorCode::memory, fmt::format("start a lane: {}", error.what())));
  }
}

}  // namespace inrush
