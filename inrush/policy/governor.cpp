#include "inrush/policy/governor.h"

#include <algorithm>

namespace inrush {
namespace {

// A window is long enough to average over the reads in flight and the noise of a disk, short
// enough that a load of one second sees several.
constexpr auto kWindow = std::chrono::milliseconds(20);
constexpr uint32_t kLeastReads = 8;
constexpr double kWorthDoubling = 1.10;
constexpr double kGoodEnough = 0.97;
constexpr uint32_t kProbeEvery = 64;  // windows

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
  if (elapsed < kWindow || window_reads_ < std::max(kLeastReads, target_)) return;
  const double rate =
      static_cast<double>(window_bytes_) / std::chrono::duration<double>(elapsed).count();
  window_start_ = now;
  window_reads_ = 0;
  window_bytes_ = 0;
  close_window(rate);
}

void Governor::close_window(double rate) {
  if (settled_ && !probing_) {
    if (++quiet_windows_ < kProbeEvery || target_ >= limits_.most) return;
    quiet_windows_ = 0;
    probing_ = true;
    steps_ = {{target_, rate}};
    move_to(std::min(target_ * 2, limits_.most));
    return;
  }
  const double before = steps_.empty() ? 0 : steps_.back().rate;
  steps_.push_back({target_, rate});
  best_rate_ = std::max(best_rate_, rate);
  if (rate > before * kWorthDoubling && target_ < limits_.most) {
    move_to(std::min(target_ * 2, limits_.most));
    return;
  }
  settle();
}

// The least that held nearly the best of the rates that were just compared.
void Governor::settle() {
  double best = 0;
  for (const Step& step : steps_) best = std::max(best, step.rate);
  uint32_t units = target_;
  for (const Step& step : steps_) {
    if (step.rate >= best * kGoodEnough) units = std::min(units, step.units);
  }
  steps_.clear();
  settled_ = true;
  probing_ = false;
  move_to(units);
}

void Governor::move_to(uint32_t units) {
  if (units == target_) return;
  target_ = units;
  unsettled_reads_ = units;
}

}  // namespace inrush
