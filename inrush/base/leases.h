// Leases: descriptors, each lent to one holder at a time. Thread-safe.
#pragma once

#include <mutex>
#include <set>

namespace inrush {

class Leases {
 public:
  // Whether it is the caller's now.
  bool take(int fd) {
    const std::lock_guard lock(mutex_);
    return taken_.insert(fd).second;
  }
  void give_back(int fd) {
    const std::lock_guard lock(mutex_);
    taken_.erase(fd);
  }

 private:
  std::mutex mutex_;
  std::set<int> taken_;
};

}  // namespace inrush
