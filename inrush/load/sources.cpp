#include "inrush/load/sources.h"

#include <algorithm>
#include <chrono>

namespace inrush {
namespace {

constexpr uint32_t kMostFailures = 3;
// A source is silent after so many times what a read of it takes, within these bounds; what it
// takes is not known before the first one came.
constexpr double kPatience = 8;
constexpr double kLeastPatience = 1;  // seconds
constexpr double kMostPatience = 10;
constexpr double kFirstPatience = 5;
constexpr double kSmoothing = 0.2;
// At the end of the queue: reads that a faster source repeats, and how much sooner it must be.
constexpr uint32_t kMostLastMinute = 2;
constexpr double kClearlySooner = 3;

}  // namespace

Sources::Sources(const Checkpoint& checkpoint) {
  states_.push_back(State(checkpoint));
  for (const Checkpoint& mirror : checkpoint.mirrors()) states_.push_back(State(mirror));
  for (State& state : states_) {
    state.stats.uri = state.place.uri();
    state.used.resize(state.place.index().blobs.size());
  }
}

const Blob& Sources::blob(uint32_t source, uint32_t blob) const {
  return states_[source].place.index().blobs[blob];
}

Store& Sources::store(uint32_t source) const { return states_[source].place.store(); }

void Sources::asked(uint32_t source, uint32_t range, bool hedge) {
  if (states_.size() == 1) return;
  const std::lock_guard lock(mutex_);
  State& state = states_[source];
  if (state.first == Clock::time_point{}) state.first = Clock::now();
  // Silence is counted from when something is owed.
  if (state.flights.empty()) state.heard = Clock::now();
  state.flights[range] = {Clock::now(), hedge};
  if (hedge) ++state.stats.hedges;
}

void Sources::came(uint32_t source, uint32_t range, uint64_t bytes, uint32_t blob) {
  const std::lock_guard lock(mutex_);
  State& state = states_[source];
  ++state.stats.reads;
  state.stats.bytes += bytes;
  state.used[blob] = true;
  if (states_.size() == 1) return;
  state.heard = Clock::now();
  state.failures = 0;
  const auto flight = state.flights.find(range);
  if (flight == state.flights.end()) return;
  const double took = seconds_between(flight->second.since, state.heard);
  state.service = state.service == 0 ? took : state.service + kSmoothing * (took - state.service);
  state.flights.erase(flight);
}

void Sources::lost(uint32_t source, uint32_t range) {
  if (states_.size() == 1) return;
  const std::lock_guard lock(mutex_);
  states_[source].flights.erase(range);
}

bool Sources::failed(uint32_t source) {
  const std::lock_guard lock(mutex_);
  State& state = states_[source];
  if (++state.failures >= kMostFailures) state.given_up = true;
  return state.given_up;
}

void Sources::repeated(uint32_t source, uint32_t retries, uint32_t hedges) {
  if (retries == 0 && hedges == 0) return;
  const std::lock_guard lock(mutex_);
  states_[source].stats.retries += retries;
  states_[source].stats.hedges += hedges;
}

void Sources::give_up(uint32_t source) {
  const std::lock_guard lock(mutex_);
  states_[source].given_up = true;
}

bool Sources::given_up(uint32_t source) const {
  const std::lock_guard lock(mutex_);
  return states_[source].given_up;
}

bool Sources::others_live(uint32_t source) const {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < states_.size(); ++i) {
    if (i != source && !states_[i].given_up) return true;
  }
  return false;
}

bool Sources::is_silent(const State& state, Clock::time_point now) const {
  if (state.flights.empty()) return false;
  const double patience =
      state.service == 0 ? kFirstPatience
                         : std::clamp(kPatience * state.service, kLeastPatience, kMostPatience);
  return seconds_between(state.heard, now) > patience;
}

bool Sources::silent(uint32_t source) const {
  const std::lock_guard lock(mutex_);
  return is_silent(states_[source], Clock::now());
}

// Bytes a second since it was first asked; negative where nothing came yet.
double Sources::rate(const State& state, Clock::time_point now) const {
  if (state.stats.bytes == 0) return -1;
  return static_cast<double>(state.stats.bytes) / std::max(seconds_between(state.first, now), 1e-6);
}

uint32_t Sources::share(uint32_t source, uint32_t left) const {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  double known = 0;
  uint32_t heard = 0;
  uint32_t live = 0;
  uint64_t ranges = left;
  for (const State& state : states_) {
    ranges += state.flights.size();
    if (state.given_up) continue;
    ++live;
    if (state.stats.bytes == 0) continue;
    known += rate(state, now);
    ++heard;
  }
  // Of which nothing is known is taken to be as fast as the others.
  const double usual = heard == 0 ? 1 : known / heard;
  const double own = rate(states_[source], now);
  const double all = known + usual * (live - heard);
  const double part = (own < 0 ? usual : own) / std::max(all, 1e-9);
  return std::max(1U, static_cast<uint32_t>(static_cast<double>(ranges) * part / 2));
}

size_t Sources::in_flight(uint32_t source) const {
  const std::lock_guard lock(mutex_);
  return states_[source].flights.size();
}

std::optional<uint32_t> Sources::overdue(uint32_t source, bool idle) {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  const State& own = states_[source];
  if (own.given_up || is_silent(own, now)) return std::nullopt;
  for (State& other : states_) {
    if (&other == &own) continue;
    const bool stuck = other.given_up || is_silent(other, now);
    for (auto& [range, flight] : other.flights) {
      if (flight.hedged || own.flights.contains(range)) continue;
      if (!stuck) {
        if (!idle || own.service == 0 || last_minute_hedges_ >= kMostLastMinute) break;
        const double left = other.service - seconds_between(flight.since, now);
        if (left < kClearlySooner * own.service) continue;
        ++last_minute_hedges_;
      }
      flight.hedged = true;
      return range;
    }
  }
  return std::nullopt;
}

void Sources::not_repeated(uint32_t range) {
  const std::lock_guard lock(mutex_);
  for (State& state : states_) {
    const auto flight = state.flights.find(range);
    if (flight != state.flights.end()) flight->second.hedged = false;
  }
}

bool Sources::used(uint32_t source, uint32_t blob) const {
  const std::lock_guard lock(mutex_);
  return states_[source].used[blob];
}

std::vector<SourceStats> Sources::stats() const {
  const std::lock_guard lock(mutex_);
  std::vector<SourceStats> all;
  for (const State& state : states_) {
    all.push_back(state.stats);
    all.back().given_up = state.given_up;
  }
  return all;
}

}  // namespace inrush
