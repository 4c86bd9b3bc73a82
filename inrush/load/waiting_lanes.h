// Lanes that wait until there is room: those that found neither slot nor memory, in the order in
// which they said so, and those that have read as far ahead as they may. The first are many where
// they wait for a device's slots, and ringing for all of them when one slot is free costs more than
// the slot's copy took. Any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>

namespace inrush {

class WaitingLanes {
 public:
  // Both to be said before looking once more: what became free before that rang for nobody.
  void starve(int wake_fd);
  void ahead(int wake_fd, uint32_t horizon);
  void remove(int wake_fd);  // one that looks again, or is about to be closed

  // Rings for so many of the starved, who have to say it again.
  void room(uint32_t most = UINT32_MAX);
  // Rings for all who were ahead of a nearer horizon.
  void move_horizon(uint32_t horizon);

 private:
  std::mutex mutex_;
  std::deque<int> starved_;
  std::map<int, uint32_t> ahead_;  // and of which horizon
};

}  // namespace inrush
