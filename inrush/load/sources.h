// The places that one load reads the same bytes from: the checkpoint itself (0) and its mirrors.
// Knows what is in flight where, which of them keep silent, and which are given up. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "inrush/load/preparation.h"

namespace inrush {

class Sources {
 public:
  explicit Sources(const Checkpoint& checkpoint);

  [[nodiscard]] size_t count() const { return states_.size(); }
  [[nodiscard]] const Blob& blob(uint32_t source, uint32_t blob) const;
  [[nodiscard]] Store& store(uint32_t source) const;
  [[nodiscard]] std::string uri(uint32_t source) const { return states_[source].stats.uri; }

  // For lanes: range `range` was asked of a source, as a hedge or not; it came, or it did not.
  // Of a single source it is not kept what is in flight: nobody is there to be compared with it.
  void asked(uint32_t source, uint32_t range, bool hedge);
  void came(uint32_t source, uint32_t range, uint64_t bytes, uint32_t blob);
  void lost(uint32_t source, uint32_t range);

  // A read failed. Whether its source is given up by that: nothing came between this failure and
  // kMostFailures - 1 before it.
  bool failed(uint32_t source);
  // Requests that were repeated there, and second ones that were sent beside a silent one.
  void repeated(uint32_t source, uint32_t retries, uint32_t hedges);
  void give_up(uint32_t source);
  [[nodiscard]] bool given_up(uint32_t source) const;
  // Whether any but this one is still read from.
  [[nodiscard]] bool others_live(uint32_t source) const;

  // Whether it owes bytes and has kept silent for longer than it ever should: it gets no more reads
  // until it speaks again.
  [[nodiscard]] bool silent(uint32_t source) const;

  // How many reads this source may have in flight where so many ranges are left in the queue: half
  // of its share by the rates seen so far, so that all sources end at about the same time.
  [[nodiscard]] uint32_t share(uint32_t source, uint32_t left) const;

  [[nodiscard]] size_t in_flight(uint32_t source) const;

  // A range in flight elsewhere that this source should read too: its source is silent or given
  // up or, where this one has nothing else to do (`idle`), clearly slower. Each range once, unless
  // the second read could not be made.
  std::optional<uint32_t> overdue(uint32_t source, bool idle);
  void not_repeated(uint32_t range);

  // Whether bytes of this blob came from that source.
  [[nodiscard]] bool used(uint32_t source, uint32_t blob) const;

  [[nodiscard]] std::vector<SourceStats> stats() const;

 private:
  struct Flight {
    Clock::time_point since;
    bool hedged = false;  // another source reads it too, or this is that second read
  };
  struct State {
    explicit State(Checkpoint from) : place(std::move(from)) {}
    Checkpoint place;
    SourceStats stats;
    std::map<uint32_t, Flight> flights;  // by range
    Clock::time_point heard{};           // when bytes came last
    Clock::time_point first{};           // when it was first asked
    double service = 0;                  // seconds a read takes, smoothed
    uint32_t failures = 0;               // in a row
    bool given_up = false;
    std::vector<bool> used;  // per blob
  };

  [[nodiscard]] double rate(const State& state, Clock::time_point now) const;
  [[nodiscard]] bool is_silent(const State& state, Clock::time_point now) const;

  mutable std::mutex mutex_;
  std::vector<State> states_;
  uint32_t last_minute_hedges_ = 0;
};

}  // namespace inrush
