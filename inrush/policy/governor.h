// A Governor finds how much to keep in flight: it doubles until the delivered rate stops growing
// by 10 %, then keeps the least that held 97 % of the best, and re-probes sparingly. Pure over the
// times it is given; one thread.
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
  struct Step {
    uint32_t units;
    double rate;
  };
  void close_window(double rate);
  void settle();
  void move_to(uint32_t units);

  GovernorLimits limits_;
  uint32_t target_;
  double best_rate_ = 0;
  bool settled_ = false;
  bool probing_ = false;          // settled, but trying twice as much for one window
  uint32_t quiet_windows_ = 0;    // since it settled, or last probed
  uint32_t unsettled_reads_ = 0;  // still to be ignored: they began before the last move
  uint32_t window_reads_ = 0;
  uint64_t window_bytes_ = 0;
  Clock::time_point window_start_{};
  std::vector<Step> steps_;
};

}  // namespace inrush
