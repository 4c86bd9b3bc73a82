#include "inrush/base/governor.h"

#include <algorithm>

namespace inrush {
namespace {

// A window is long enough to average over the reads in flight and the noise of a disk, short
// enough that a load of one second sees several.
constexpr auto kRateWindow = std::chrono::milliseconds(20);
constexpr uint32_t kLeastReads = 8;
constexpr double kWorthDoubling = 1.10;
constexpr double kGoodEnough = 0.97;
constexpr uint32_t kProbeEvery = 64;  // windows
constexpr uint32_t kUsualOver = 8;    // windows that a moving average remembers
constexpr double kDisappointing = 0.9;

}  // namespace

Governor::Governor(const GovernorLimits& limits)
    : limits_(limits), target_(std::clamp(limits.first, limits.least, limits.most)) {}

void Governor::delivered(uint64_t bytes, Clock::time_point now) {
  if (unsettled_reads_ > 0) {
    --unsettled_reads_;
    window_start_ = now;
    return;
  }
  if (window_start_ == Clock::time_point{}) {
    // The first delivery only says when the first window begins.
    window_start_ = now;
    return;
  }
  ++window_reads_;
  window_bytes_ += bytes;
  const auto elapsed = now - window_start_;
  if (elapsed < kRateWindow || window_reads_ < std::max(kLeastReads, target_)) return;
  const double rate =
      static_cast<double>(window_bytes_) / std::chrono::duration<double>(elapsed).count();
  window_start_ = now;
  window_reads_ = 0;
  window_bytes_ = 0;
  close_window(rate);
}

void Governor::close_window(double rate) {
  best_rate_ = std::max(best_rate_, rate);
  switch (phase_) {
    case Phase::rising:
      rise(rate);
      break;
    case Phase::falling:
      fall(rate);
      break;
    case Phase::settled:
      look_around(rate);
      break;
  }
}

void Governor::rise(double rate) {
  const double before = steps_.empty() ? 0 : steps_.back().rate;
  steps_.push_back({target_, rate});
  if (rate > before * kWorthDoubling && target_ < limits_.most) {
    move_to(std::min(target_ * 2, limits_.most));
    return;
  }
  // The least that held nearly the best of the rates that were just compared.
  double best = 0;
  for (const Step& step : steps_) best = std::max(best, step.rate);
  const auto least = std::find_if(steps_.begin(), steps_.end(), [&](const Step& step) {
    return step.rate >= best * kGoodEnough;
  });
  const Step found = *least;
  // Where more is clearly worse, as with the seeks of a spinning disk, less may be better still.
  // Where it is merely of no use, less is only looked at later: a noisy window at half the depth
  // costs a load of one second more than it gains (measured: 16 threads of direct pread, 1 GB at
  // 1.6 GB/s, lose 15 %).
  const bool hurts = least == steps_.begin() && rate * kWorthDoubling < best;
  steps_.clear();
  if (hurts && found.units > limits_.least) {
    begin_to_fall(found.units, best);
  } else {
    settle(found.units, found.rate);
  }
}

void Governor::begin_to_fall(uint32_t from, double rate) {
  phase_ = Phase::falling;
  good_units_ = from;
  usual_rate_ = rate;
  move_to(std::max(from / 2, limits_.least));
}

void Governor::fall(double rate) {
  if (rate < usual_rate_ * kGoodEnough) {
    settle(good_units_, usual_rate_);
    return;
  }
  good_units_ = target_;
  usual_rate_ = std::max(usual_rate_, rate);
  if (target_ > limits_.least) {
    move_to(std::max(target_ / 2, limits_.least));
  } else {
    settle(target_, usual_rate_);
  }
}

void Governor::look_around(double rate) {
  usual_rate_ += (rate - usual_rate_) / kUsualOver;
  ++quiet_windows_;
  // Noise may have made too little look enough: that shows as soon as the average is in.
  const bool disappoints =
      quiet_windows_ >= 2 * kUsualOver && usual_rate_ < settled_rate_ * kDisappointing;
  if (quiet_windows_ < kProbeEvery && !disappoints) return;
  quiet_windows_ = 0;
  settled_rate_ = usual_rate_;
  probe_up_ = disappoints || !probe_up_;
  if (probe_up_ && target_ < limits_.most) {
    phase_ = Phase::rising;
    steps_ = {{target_, usual_rate_}};
    move_to(std::min(target_ * 2, limits_.most));
  } else if (!probe_up_ && target_ > limits_.least) {
    begin_to_fall(target_, usual_rate_);
  }
}

void Governor::settle(uint32_t units, double rate) {
  phase_ = Phase::settled;
  settled_ = true;
  usual_rate_ = settled_rate_ = rate;
  quiet_windows_ = 0;
  move_to(units);
}

void Governor::move_to(uint32_t units) {
  if (units == target_) return;
  target_ = units;
  unsettled_reads_ = units;
}

}  // namespace inrush
