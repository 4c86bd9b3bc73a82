// A Governor finds how much to keep in flight: it doubles until the delivered rate stops growing
// by 10 %, then keeps the least that held 97 % of the best, also below where it began, and
// re-probes sparingly, upwards and downwards in turn. Pure over the times it is given; one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "inrush/core/engine.h"

namespace inrush {

struct GovernorLimits {
  uint32_t first = 8;  // units in flight to begin with (reads, or streams)
  uint32_t most = 64;
  uint32_t least = 1;
};

class Governor {
 public:
  explicit Governor(const GovernorLimits& limits);

  // Bytes were delivered at that moment.
  void delivered(uint64_t bytes, Clock::time_point now);

  // How many units to keep in flight now.
  [[nodiscard]] uint32_t target() const { return target_; }

  // The best rate seen over a whole window, in bytes per second; 0 before the first.
  [[nodiscard]] double best_rate() const { return best_rate_; }

  [[nodiscard]] bool settled() const { return settled_; }

 private:
  enum class Phase : uint8_t { rising, falling, settled };
  struct Step {
    uint32_t units;
    double rate;
  };
  void close_window(double rate);
  void rise(double rate);
  void fall(double rate);
  void look_around(double rate);
  void begin_to_fall(uint32_t from, double rate);
  void settle(uint32_t units, double rate);
  void move_to(uint32_t units);

  GovernorLimits limits_;
  uint32_t target_;
  Phase phase_ = Phase::rising;
  bool settled_ = false;
  bool probe_up_ = false;  // whether the last re-probe went upwards
  double best_rate_ = 0;
  double settled_rate_ = 0;       // that made it settle
  double usual_rate_ = 0;         // of the windows since it settled, a moving average
  uint32_t good_units_ = 0;       // while falling: the least so far that held the rate
  uint32_t quiet_windows_ = 0;    // since it settled
  uint32_t unsettled_reads_ = 0;  // still to be ignored: they began before the last move
  uint32_t window_reads_ = 0;
  uint64_t window_bytes_ = 0;
  Clock::time_point window_start_{};
  std::vector<Step> steps_;
};

}  // namespace inrush
