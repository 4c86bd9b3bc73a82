// Lanes that found neither slot nor memory, in the order in which they said so. Those that wait for
// a device's slots are many, and ringing for all of them when one slot is free costs more than the
// slot's copy took. Beside them those that have read as far ahead as they may. Any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>

namespace inrush {

class StarvedLanes {
 public:
  // To be said before looking once more: what became free before that rang for nobody.
  void add(int wake_fd);
  void add_ahead(int wake_fd);
  void remove(int wake_fd);  // one that looks again, or is about to be closed

  // Rings for so many of them, who have to say it again.
  void wake(uint32_t most = UINT32_MAX);
  // For all that were too far ahead.
  void wake_ahead();

 private:
  std::mutex mutex_;
  std::deque<int> lanes_;
  std::deque<int> ahead_;
};

}  // namespace inrush
