#include "inrush/load/waiting_lanes.h"

#include <algorithm>

#include "inrush/base/fd.h"

namespace inrush {

void WaitingLanes::starve(int wake_fd) {
  const std::lock_guard lock(mutex_);
  if (std::find(starved_.begin(), starved_.end(), wake_fd) == starved_.end()) {
    starved_.push_back(wake_fd);
  }
}

void WaitingLanes::ahead(int wake_fd, uint32_t horizon) {
  const std::lock_guard lock(mutex_);
  ahead_[wake_fd] = horizon;
}

void WaitingLanes::remove(int wake_fd) {
  const std::lock_guard lock(mutex_);
  std::erase(starved_, wake_fd);
  ahead_.erase(wake_fd);
}

void WaitingLanes::room(uint32_t most) {
  const std::lock_guard lock(mutex_);
  for (; most > 0 && !starved_.empty(); --most) {
    ring(starved_.front());
    starved_.pop_front();
  }
}

void WaitingLanes::move_horizon(uint32_t horizon) {
  const std::lock_guard lock(mutex_);
  std::erase_if(ahead_, [&](const auto& lane) {
    const bool moved = lane.second < horizon;
    if (moved) ring(lane.first);
    return moved;
  });
}

}  // namespace inrush
