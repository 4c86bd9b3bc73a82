#include "inrush/base/parallel.h"
#include "inrush/base/thread.h"
#include "inrush/core/error.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace inrush {
namespace {

class Work {
 public:
  Work(size_t count, const std::function<void(size_t)>& piece) : count_(count), piece_(piece) {}

  void run() {
    while (!failed_.load(std::memory_order_relaxed)) {
      const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= count_) return;
      try {
        piece_(i);
      } catch (...) {
        fail(i, std::current_exception());
      }
    }
  }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // Pieces are begun in order, so the lowest one that fails has always been begun.
  void fail(size_t i, std::exception_ptr error) {
    const std::scoped_lock lock(mutex_);
    if (!error_ || i < error_at_) {
      error_ = std::move(error);
      error_at_ = i;
    }
    failed_ = true;
  }

  const size_t count_;
  const std::function<void(size_t)>& piece_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::exception_ptr error_;
  size_t error_at_ = 0;
};

}  // namespace

void parallel_for(size_t count, size_t threads, const std::function<void(size_t)>& work) {
  Work shared(count, work);
  std::vector<std::thread> others;
  try {
    for (size_t i = 1; i < std::min(count, threads); ++i) {
      others.push_back(start_thread("shares the work", [&shared] { shared.run(); }));
    }
  } catch (const Error&) {
    // A cgroup may grant no more threads; those that are there do the work.
  }
  shared.run();
  for (std::thread& other : others) other.join();
  shared.rethrow();
}

}  // namespace inrush
