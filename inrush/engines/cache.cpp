// Reads remote blobs through their copies on this machine: what is there is read from there, what
// is not comes by the blob's own engine and is written to the copy before the read completes, so
// that its bytes cost no memory of their own. A thread does the file's part of it, beside the
// network's.
#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "inrush/base/cache_file.h"
#include "inrush/base/thread.h"
#include "inrush/codecs/crc32.h"
#include "inrush/engines/engines.h"
#include "inrush/engines/rows.h"
#include "inrush/engines/submission.h"
#include "inrush/engines/wake.h"

namespace inrush {
namespace {

// Of a process that fills the copy: how often it is looked at, and for how long it may bring
// nothing before the bytes are fetched anyway.
constexpr std::chrono::milliseconds kLook{20};
constexpr std::chrono::seconds kPatienceWithOthers{10};

// Of a copy whose last bytes came, this much may be left to digest before the load has them: what
// is wrong is known in time then. Else Checkpoint::confirm() tells it.
constexpr uint64_t kSoonDigested = 32ULL << 20;
constexpr uint64_t kDigestStep = 1ULL << 20;

// While nothing waits, so much at once is sent on its way to the disk.
constexpr uint64_t kSyncStep = 2ULL << 20;

// Ledgers are written while blocks come; when none has for so long, what is missing in them is.
constexpr std::chrono::milliseconds kQuiet{100};

constexpr uint32_t kMostInFlight = 64;  // until the blob's own engine is known, and after

const CachedBlob& cached(const Blob& blob) {
  return *static_cast<const CachedBlob*>(blob.handle.get());
}

struct Job {
  Read read;
  std::shared_ptr<CacheFile> file;
  bool fills = false;    // else it reads
  Completion fetched{};  // of what it fills from
};

// The thread that reads and writes copies.
class FileWorker {
 public:
  // `around`: copies are written past the page cache, where that can be.
  FileWorker(int wake_fd, bool around) : wake_(wake_fd), around_(around) {}
  ~FileWorker() { stop(); }
  FileWorker(const FileWorker&) = delete;
  FileWorker& operator=(const FileWorker&) = delete;

  void add(Job job) {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) {
      thread_ = start_thread("keeps what was read", [this] { work(); });
    }
    queue_.push_back(std::move(job));
    queued_.notify_one();
  }

  size_t take(std::span<Completion> done) {
    const std::lock_guard lock(mutex_);
    const size_t count = std::min(done.size(), completed_.size());
    std::move(completed_.begin(), completed_.begin() + static_cast<ptrdiff_t>(count), done.begin());
    completed_.erase(completed_.begin(), completed_.begin() + static_cast<ptrdiff_t>(count));
    return count;
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    queued_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  // From now on nothing is written, and what is to be read is cancelled.
  void cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      await_work(lock);
      if (queue_.empty()) return;
      const Job job = std::move(queue_.front());
      queue_.pop_front();
      const bool skip = cancelled_ || closed_;
      lock.unlock();
      Completion completion = job.fetched;
      completion.tag = job.read.tag;
      completion.error = run(job, skip);
      lock.lock();
      completed_.push_back(std::move(completion));
      wake_.ring();
      if (!job.fills) continue;
      // What the end of the filling would have to wait for: as much of it as there is time for.
      lock.unlock();
      written_.push_back({job.file, {job.read.offset, job.read.required}});
      unsaved_.insert(job.file);
      while (is_idle() && (sync_some() || job.file->digest_some(kDigestStep))) continue;
      lock.lock();
    }
  }

  // With the lock held, but while ledgers are written.
  void await_work(std::unique_lock<std::mutex>& lock) {
    const auto called = [this] { return closed_ || !queue_.empty(); };
    while (!unsaved_.empty() && !queued_.wait_for(lock, kQuiet, called)) {
      lock.unlock();
      for (const auto& file : unsaved_) file->save_ledger();
      unsaved_.clear();
      lock.lock();
    }
    queued_.wait(lock, called);
  }

  // Whether there may be more to do.
  bool sync_some() {
    if (written_.empty()) return false;
    auto& [file, left] = written_.front();
    const uint64_t size = std::min(left.size, kSyncStep);
    file->begin_sync({left.offset, size});
    left = {left.offset + size, left.size - size};
    if (left.size == 0) written_.pop_front();
    return !written_.empty();
  }

  bool is_idle() {
    const std::lock_guard lock(mutex_);
    return queue_.empty() && !closed_ && !cancelled_;
  }

  std::optional<Error> run(const Job& job, bool skip) const {
    const std::span<std::byte> bytes(job.read.target, job.read.required);
    try {
      if (job.fills) {
        if (!skip && job.file->filling()) {
          const std::string digest = fmt::format("{:08x}", crc32(0, bytes));
          job.file->fill(job.read.offset, bytes, digest, around_);
          job.file->finish(kSoonDigested);
          job.file->demand_right();
        }
        return std::nullopt;
      }
      if (skip) return Error(ErrorCode::cancelled, "the read was cancelled");
      job.file->read(job.read.offset, bytes);
      return std::nullopt;
    } catch (const Error& error) {
      return error;
    }
  }

  Wake wake_;
  const bool around_;
  std::deque<std::pair<std::shared_ptr<CacheFile>, Interval>> written_;  // the thread's own
  std::set<std::shared_ptr<CacheFile>> unsaved_;                         // the thread's own
  std::mutex mutex_;
  std::condition_variable queued_;
  std::deque<Job> queue_;
  std::deque<Completion> completed_;
  bool closed_ = false;
  bool cancelled_ = false;
  std::thread thread_;
};

class CacheEngine final : public Engine {
 public:
  explicit CacheEngine(const EngineOptions& options)
      : options_(options), wake_(options.wake_fd), worker_(wake_.fd(), !options.keep_pages) {
    options_.wake_fd = wake_.fd();
  }

  ~CacheEngine() override {
    worker_.stop();
    bool wrong = false;
    for (const Blob& blob : blobs_) {
      const auto& file = cached(blob).file;
      if (!file) continue;
      if (!cancelled_) file->finish();
      wrong |= file->is_wrong();
    }
    for (const Blob& blob : blobs_) {
      const auto& file = cached(blob).file;
      if (!file) continue;
      if (wrong) file->doubt();
      file->leave();
    }
  }
  CacheEngine(const CacheEngine&) = delete;
  CacheEngine& operator=(const CacheEngine&) = delete;

  [[nodiscard]] EngineTraits traits() const override {
    EngineTraits traits = inner_ ? inner_->traits() : EngineTraits{};
    traits.name = "cache";
    traits.most_in_flight = std::min(traits.most_in_flight, kMostInFlight);
    return traits;
  }

  uint32_t open(const Blob& blob) override {
    const Blob& inner = cached(blob).inner;
    if (!inner_) {
      const EngineRow* row = find_engine(inner.engine);
      if (row == nullptr) {
        throw Error(ErrorCode::source,
                    fmt::format("open {}: no engine is named {}", blob.name, inner.engine));
      }
      inner_ = row->make(options_);
    }
    if (cached(blob).file) cached(blob).file->demand_right();
    inner_files_.push_back(inner_->open(inner));
    blobs_.push_back(blob);
    if (cached(blob).file) cached(blob).file->enter();
    return static_cast<uint32_t>(blobs_.size() - 1);
  }

  void attach(const Region& region) override {
    if (inner_) inner_->attach(region);
  }

  void submit(std::span<const Read> reads) override {
    check_room(traits(), reads.size(), in_flight_);
    check_reads(traits(), reads, blobs_.size());
    std::vector<Read> fetched;
    for (const Read& read : reads) {
      const auto& file = cached(blobs_[read.file]).file;
      if (file && file->covers(read.offset, read.required)) {
        worker_.add({read, file, false});
      } else if (file && file->filled_elsewhere() && !cancelled_ && !impatient_) {
        if (waiting_.empty()) news_ = Clock::now();
        waiting_.push_back(read);
      } else {
        fetched.push_back(read);
      }
    }
    fetch(fetched);
    in_flight_ += reads.size();
  }

  size_t wait(std::span<Completion> done, Deadline deadline) override {
    look();
    if (size_t count = worker_.take(done)) return finish(count);
    const Deadline until = waiting_.empty() ? deadline : std::min(deadline, Clock::now() + kLook);
    std::vector<Completion> came(done.size());
    const size_t there = inner_ ? inner_->wait(came, until) : sleep(until);
    size_t count = 0;
    for (size_t i = 0; i < there; ++i) {
      const auto found = fetching_.find(came[i].tag);
      const Read read = found->second;
      fetching_.erase(found);
      const auto& file = cached(blobs_[read.file]).file;
      if (!came[i].error && file && file->filling() && !cancelled_) {
        worker_.add({read, file, true, came[i]});
      } else {
        done[count++] = std::move(came[i]);
      }
    }
    return finish(count + worker_.take(done.subspan(count)));
  }

  void cancel() override {
    cancelled_ = true;
    worker_.cancel();
    if (inner_) inner_->cancel();
    wake_.ring();
  }

 private:
  size_t sleep(Deadline deadline) {
    wake_.sleep(deadline);
    wake_.take();
    return 0;
  }

  size_t finish(size_t count) {
    in_flight_ -= count;
    return count;
  }

  void fetch(std::vector<Read>& reads) {
    for (Read& read : reads) {
      fetching_.emplace(read.tag, read);
      read.file = inner_files_[read.file];
    }
    if (reads.empty()) return;
    try {
      inner_->submit(reads);
    } catch (...) {
      for (const Read& read : reads) fetching_.erase(read.tag);
      throw;
    }
  }

  // What another process was to bring: it has, or it is gone, or it is too slow.
  void look() {
    if (waiting_.empty()) return;
    const auto now = Clock::now();
    if (now < next_look_ && !cancelled_) return;
    next_look_ = now + kLook;
    std::vector<Read> still;
    std::vector<Read> fetched;
    for (const Read& read : waiting_) {
      const auto& file = cached(blobs_[read.file]).file;
      if (file->refresh()) news_ = now;
      impatient_ = now - news_ > kPatienceWithOthers;
      if (file->covers(read.offset, read.required)) {
        worker_.add({read, file, false});
      } else if (cancelled_ || file->filling() || impatient_) {
        fetched.push_back(read);
      } else {
        still.push_back(read);
      }
    }
    waiting_ = std::move(still);
    fetch(fetched);
  }

  EngineOptions options_;
  Wake wake_;
  std::atomic<bool> cancelled_{false};
  std::unique_ptr<Engine> inner_;
  std::vector<Blob> blobs_;
  std::vector<uint32_t> inner_files_;
  std::unordered_map<uint64_t, Read> fetching_;  // by tag
  std::vector<Read> waiting_;                    // for another process
  Clock::time_point news_{};
  bool impatient_ = false;  // it brought nothing for too long
  Clock::time_point next_look_{};
  size_t in_flight_ = 0;
  FileWorker worker_;
};

}  // namespace

std::unique_ptr<Engine> make_cache(const EngineOptions& options) {
  return std::make_unique<CacheEngine>(options);
}

}  // namespace inrush
