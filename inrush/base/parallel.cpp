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
  Work(size_t count, size_t threads, const std::function<void(size_t)>& piece)
      : count_(count), piece_(piece) {
    others_.resize(std::max<size_t>(std::min(count, threads), 1) - 1);
  }

  // On the caller's thread as 0, and on each of the others.
  void run(size_t self) {
    start_after(self);
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

  void join() {
    for (auto other = others_.begin(); other != others_.end() && other->joinable(); ++other) {
      other->join();
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  // Each thread starts the next one before its own first piece: quick work is done by few. Whoever
  // joins a thread sees the next.
  void start_after(size_t self) {
    if (self == others_.size() || next_.load(std::memory_order_relaxed) >= count_) return;
    try {
      others_[self] = start_thread("shares the work", [this, self] { run(self + 1); });
    } catch (const Error&) {
      // A cgroup may grant no more threads; those that are there do the work.
    }
  }

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
  std::vector<std::thread> others_;
};

}  // namespace

void parallel_for(size_t count, size_t threads, const std::function<void(size_t)>& work) {
  Work shared(count, threads, work);
  shared.run(0);
  shared.join();
}

}  // namespace inrush
