// What becomes of a load when a read, a lane or a source fails.
#include <fmt/format.h>

#include <algorithm>

#include "inrush/load/board.h"

namespace inrush {
namespace {

constexpr uint8_t kMostAttempts = 2;  // of one range at one source

// A remote place is read by its own engine, which asks again by itself, or not at all.
bool is_remote(const Facts& facts) { return !facts.filesystem.engine.empty(); }

}  // namespace

LaneChoice fallback_lane(Coverage coverage, const Facts& facts) {
  LaneChoice lane;
  lane.engine = "pread";
  lane.coverage = coverage;
  lane.depth = lane.most_depth = std::max(2U, facts.machine.cpus);
  return lane;
}

std::string row_of(const LaneChoice& lane) {
  return fmt::format("{}{} {} {}", lane.engine, lane.direct ? " direct" : "",
                     static_cast<int>(lane.coverage), lane.source);
}

// Where there is no room for one more lane (descriptors, threads, memory) those alike do without.
bool Board::others_read(const LaneChoice& lane, const Error& error) {
  if (error.code() != ErrorCode::memory) return false;
  const std::lock_guard lock(mutex_);
  uint32_t& alike = lanes_.alike[row_of(lane)];
  if (alike < 2) return false;
  --alike;
  fallbacks_.push_back(fmt::format("one lane of {} less: {}", lane.engine, error.message()));
  wake_lanes();
  return true;
}

void Board::read_failed(const Grant& grant, const Error& error, const LaneChoice& lane) {
  sources_.lost(lane.source, grant.first);
  if (grant.hedge) sources_.not_repeated(grant.first);
  const bool wanted = sink_->release(grant);
  const bool cancelled = error.code() == ErrorCode::cancelled;
  if (stopped()) return;
  const bool source_failed = !cancelled && error.code() == ErrorCode::source;
  if (wanted && source_failed && lane.picks_files) {
    queue_->give_back({grant.first, grant.count});
    return refuse_file(preparation_.plan.ranges[grant.first].blob, error, lane);
  }
  const bool several = sources_.count() > 1;
  if (several && source_failed && !sources_.given_up(lane.source) && sources_.failed(lane.source)) {
    leave(lane, error);
  }
  if (!wanted || stopped()) return;
  bool fall_back = false;
  if (!cancelled) {
    const bool again = source_failed && may_retry(grant);
    if (!again) return fail(error);
    fall_back = !several && !fell_back_.exchange(true);
  }
  sources_.repeated(lane.source, 1, 0);
  if (fall_back) start_lane(fallback_lane(lane.coverage, preparation_.facts));
  queue_->give_back({grant.first, grant.count});
  const std::lock_guard lock(mutex_);
  wake_lanes();
}

// Counts the failure of a range.
bool Board::may_retry(const Grant& grant) {
  const std::lock_guard lock(mutex_);
  const bool only_once = preparation_.options.choice.strict || is_remote(preparation_.facts);
  if (only_once && sources_.count() == 1) return false;
  if (attempts_.empty()) attempts_.resize(preparation_.plan.ranges.size());
  return ++attempts_[grant.first] < kMostAttempts * sources_.count();
}

void Board::refuse_file(uint32_t blob, const Error& error, const LaneChoice& lane) {
  if (preparation_.options.choice.strict) return fail(error);
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = refused_.empty();
    refused_.resize(index().blobs.size());
    if (refused_[blob]) return wake_lanes();
    refused_[blob] = true;
    fallbacks_.push_back(fmt::format("{}: {}", lane.engine, error.message()));
  }
  const auto& ranges = preparation_.plan.ranges;
  std::vector<bool> its(ranges.size());
  for (size_t i = 0; i < ranges.size(); ++i) its[i] = ranges[i].blob == blob;
  queue_->turn_over(its);
  try {
    if (first) start_lane(fallback_lane(Coverage::resident, preparation_.facts));
  } catch (const Error& second) {
    return fail(second);
  }
  const std::lock_guard lock(mutex_);
  wake_lanes();
}

void Board::lane_failed(const Error& error, const LaneChoice& lane) {
  const bool plain = lane.engine == "pread" && !lane.direct;
  if (stopped() || others_read(lane, error)) return;
  if (sources_.count() > 1 && error.code() == ErrorCode::source) return leave(lane, error);
  if (preparation_.options.choice.strict || plain || error.code() == ErrorCode::memory ||
      is_remote(preparation_.facts)) {
    fail(error);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    fallbacks_.push_back(fmt::format("{}: {}", lane.engine, error.message()));
  }
  try {
    start_lane(fallback_lane(lane.coverage, preparation_.facts));
  } catch (const Error& second) {
    fail(second);
  }
}

// A source is given up: the others go on without it.
void Board::leave(const LaneChoice& lane, const Error& error) {
  sources_.give_up(lane.source);
  if (!sources_.others_live(lane.source)) return fail(error);
  const std::lock_guard lock(mutex_);
  fallbacks_.push_back(
      fmt::format("{} is given up: {}", sources_.uri(lane.source), error.message()));
  wake_lanes();
}

}  // namespace inrush
