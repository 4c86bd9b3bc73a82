#include "inrush/load/starved_lanes.h"

#include <algorithm>

#include "inrush/base/fd.h"

namespace inrush {

void StarvedLanes::add(int wake_fd) {
  const std::lock_guard lock(mutex_);
  if (std::find(lanes_.begin(), lanes_.end(), wake_fd) == lanes_.end()) lanes_.push_back(wake_fd);
}

void StarvedLanes::add_ahead(int wake_fd) {
  const std::lock_guard lock(mutex_);
  ahead_.push_back(wake_fd);
}

void StarvedLanes::remove(int wake_fd) {
  const std::lock_guard lock(mutex_);
  std::erase(lanes_, wake_fd);
  std::erase(ahead_, wake_fd);
}

void StarvedLanes::wake(uint32_t most) {
  const std::lock_guard lock(mutex_);
  for (; most > 0 && !lanes_.empty(); --most) {
    ring(lanes_.front());
    lanes_.pop_front();
  }
}

void StarvedLanes::wake_ahead() {
  const std::lock_guard lock(mutex_);
  for (const int fd : ahead_) ring(fd);
  ahead_.clear();
}

}  // namespace inrush
