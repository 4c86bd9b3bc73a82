#include "inrush/engines/blocking.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "inrush/base/thread.h"
#include "inrush/engines/wake.h"

namespace inrush {

namespace {

// How long the destructor waits for threads in the middle of a read. A healthy disk answers in
// milliseconds.
constexpr std::chrono::milliseconds kPatienceWithThreads{300};

struct Shared {
  Shared(std::shared_ptr<BlockingSource> from, int wake_fd)
      : source(std::move(from)), wake(wake_fd) {}

  std::shared_ptr<BlockingSource> source;
  Wake wake;
  std::atomic<bool> stop{false};

  std::mutex mutex;
  std::condition_variable queued;   // something to do, or closed
  std::condition_variable quitted;  // a thread has left
  std::deque<Read> queue;
  std::deque<Completion> completed;
  uint32_t working = 0;  // threads that have not left
  uint32_t idle = 0;     // of them, those without a read
  bool closed = false;
};

Completion cancelled(const Read& read) {
  return {.tag = read.tag, .error = Error(ErrorCode::cancelled, "the read was cancelled")};
}

std::optional<Error> read_once(BlockingSource& source, const Read& read,
                               const std::atomic<bool>& stop) {
  try {
    return source.read(read, stop);
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    return Error(ErrorCode::memory, error.what());
  }
}

void work(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  for (;;) {
    ++shared->idle;
    shared->queued.wait(lock, [&] { return shared->closed || !shared->queue.empty(); });
    --shared->idle;
    if (shared->closed) break;
    const Read read = shared->queue.front();
    shared->queue.pop_front();
    lock.unlock();
    Completion completion{.tag = read.tag, .error = read_once(*shared->source, read, shared->stop)};
    lock.lock();
    shared->completed.push_back(std::move(completion));
    shared->wake.ring();
  }
  --shared->working;
  shared->quitted.notify_all();
}

class BlockingEngine final : public Engine {
 public:
  BlockingEngine(std::shared_ptr<BlockingSource> source, int wake_fd, uint32_t threads)
      : most_threads_(std::max(threads, 1U)),
        shared_(std::make_shared<Shared>(std::move(source), wake_fd)) {}

  ~BlockingEngine() override {
    cancel();
    std::unique_lock lock(shared_->mutex);
    shared_->closed = true;
    shared_->queued.notify_all();
    const bool stuck = !shared_->quitted.wait_for(lock, kPatienceWithThreads,
                                                  [&] { return shared_->working == 0; });
    lock.unlock();
    for (std::thread& thread : threads_) {
      stuck ? thread.detach() : thread.join();
    }
  }

  [[nodiscard]] EngineTraits traits() const override { return shared_->source->traits(); }

  uint32_t open(const Blob& blob) override { return shared_->source->open(blob); }

  void attach(const Region& region) override { shared_->source->attach(region); }

  void submit(std::span<const Read> reads) override {
    shared_->source->accept(reads, in_flight_);
    const std::lock_guard lock(shared_->mutex);
    grow(reads.size());
    in_flight_ += reads.size();
    if (shared_->stop) {
      for (const Read& read : reads) shared_->completed.push_back(cancelled(read));
      shared_->wake.ring();
      return;
    }
    shared_->queue.insert(shared_->queue.end(), reads.begin(), reads.end());
    reads.size() == 1 ? shared_->queued.notify_one() : shared_->queued.notify_all();
  }

  size_t wait(std::span<Completion> done, Deadline deadline) override {
    const bool rang = shared_->wake.take();
    size_t count = collect(done);
    if (count > 0 || rang || !shared_->wake.sleep(deadline)) return count;
    shared_->wake.take();
    return collect(done);
  }

  void cancel() override {
    const std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
    for (const Read& read : shared_->queue) shared_->completed.push_back(cancelled(read));
    shared_->queue.clear();
    shared_->wake.ring();
  }

 private:
  // With the lock held: threads enough for `more` reads. One is enough to go on with.
  void grow(size_t more) {
    const size_t busy = threads_.size() - shared_->idle;
    const size_t wanted = std::min<size_t>(most_threads_, busy + shared_->queue.size() + more);
    while (threads_.size() < wanted) {
      try {
        threads_.push_back(start_thread("reads", [shared = shared_] { work(shared); }));
        ++shared_->working;
      } catch (const Error&) {
        if (threads_.empty()) throw;
        return;
      }
    }
  }

  size_t collect(std::span<Completion> done) {
    const std::lock_guard lock(shared_->mutex);
    auto& completed = shared_->completed;
    const size_t count = std::min(done.size(), completed.size());
    std::move(completed.begin(), completed.begin() + static_cast<ptrdiff_t>(count), done.begin());
    completed.erase(completed.begin(), completed.begin() + static_cast<ptrdiff_t>(count));
    in_flight_ -= count;
    return count;
  }

  uint32_t most_threads_;
  size_t in_flight_ = 0;  // submitted and not yet returned by wait()
  std::shared_ptr<Shared> shared_;
  std::vector<std::thread> threads_;
};

class OnLaneEngine final : public Engine {
 public:
  OnLaneEngine(std::shared_ptr<BlockingSource> source, int wake_fd)
      : source_(std::move(source)), wake_(wake_fd) {}

  [[nodiscard]] EngineTraits traits() const override { return source_->traits(); }

  uint32_t open(const Blob& blob) override { return source_->open(blob); }

  void attach(const Region& region) override { source_->attach(region); }

  void submit(std::span<const Read> reads) override {
    source_->accept(reads, queue_.size());
    queue_.insert(queue_.end(), reads.begin(), reads.end());
  }

  size_t wait(std::span<Completion> done, Deadline deadline) override {
    const bool rang = wake_.take();
    if (queue_.empty() || done.empty()) {
      if (!rang && wake_.sleep(deadline)) wake_.take();
      return 0;
    }
    const Read read = queue_.front();
    queue_.pop_front();
    done[0] = stop_ ? cancelled(read)
                    : Completion{.tag = read.tag, .error = read_once(*source_, read, stop_)};
    return 1;
  }

  void cancel() override {
    stop_ = true;
    wake_.ring();
  }

 private:
  std::shared_ptr<BlockingSource> source_;
  Wake wake_;
  std::atomic<bool> stop_{false};
  std::deque<Read> queue_;
};

}  // namespace

std::unique_ptr<Engine> make_on_lane_engine(std::shared_ptr<BlockingSource> source, int wake_fd) {
  return std::make_unique<OnLaneEngine>(std::move(source), wake_fd);
}

std::unique_ptr<Engine> make_blocking_engine(std::shared_ptr<BlockingSource> source, int wake_fd,
                                             uint32_t threads) {
  return std::make_unique<BlockingEngine>(std::move(source), wake_fd, threads);
}

}  // namespace inrush
