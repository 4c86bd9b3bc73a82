#include "inrush/engines/async.h"
#include "inrush/base/thread.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <utility>
#include <vector>

namespace inrush {

namespace {

// How long the destructor waits for the kernel to let go of reads: a disk answers in milliseconds.
constexpr std::chrono::milliseconds kPatienceWithKernel{300};
// Reads that the kernel would not take (EAGAIN, EBUSY) are offered again this soon.
constexpr std::chrono::milliseconds kSoon{5};

// The reads of one engine, and all they need.
class Reads {
 public:
  explicit Reads(AsyncParts parts);

  [[nodiscard]] const EngineTraits& traits() const { return files_->traits(); }
  [[nodiscard]] size_t in_flight() const { return in_flight_; }
  uint32_t open(const Blob& blob);
  void submit(std::span<const Read> reads);
  size_t wait(std::span<Completion> done, Deadline deadline);
  void cancel();

  // After cancel(): until the kernel holds none of them any more, however long that takes.
  void outlast();

 private:
  struct Slot {
    Read read;
    ReadProgress progress;
    std::shared_ptr<const Fd> fd;  // where the queue has not registered the file
    bool in_kernel = false;
  };

  void push();
  bool prepare(uint32_t id);
  void reap();
  void drop_all();
  void took(const KernelAnswer& answer);
  void finish(uint32_t id, std::optional<Error> error);
  size_t collect(std::span<Completion> done);

  // The queue goes first: it may hold descriptors of the files and of the eventfd.
  std::unique_ptr<LocalFiles> files_;
  std::unique_ptr<Wake> wake_;
  std::unique_ptr<KernelQueue> queue_;
  std::atomic<bool> cancelled_{false};
  bool dropped_ = false;
  size_t in_flight_ = 0;          // submitted and not yet returned by wait()
  std::vector<bool> registered_;  // files of which the queue needs no descriptor
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::deque<uint32_t> waiting_;  // slots whose next part the kernel has not taken yet
  std::vector<KernelRead> offered_;
  std::deque<Completion> completed_;
};

Reads::Reads(AsyncParts parts)
    : files_(std::move(parts.files)),
      wake_(std::move(parts.wake)),
      queue_(std::move(parts.queue)),
      slots_(files_->traits().most_in_flight) {
  for (auto id = static_cast<uint32_t>(slots_.size()); id > 0; --id) free_.push_back(id - 1);
}

uint32_t Reads::open(const Blob& blob) {
  const uint32_t file = files_->open(blob);
  registered_.resize(file + 1);
  registered_[file] = queue_->opened(file, files_->descriptor(file)->get());
  return file;
}

void Reads::submit(std::span<const Read> reads) {
  files_->check(reads, in_flight_);
  in_flight_ += reads.size();
  for (const Read& read : reads) {
    const uint32_t id = free_.back();
    free_.pop_back();
    slots_[id].read = read;
    slots_[id].progress = ReadProgress(read, files_->at(read.file).shape);
    waiting_.push_back(id);
  }
  push();
}

void Reads::push() {
  while (cancelled_ && !waiting_.empty()) {
    const uint32_t id = waiting_.front();
    waiting_.pop_front();
    finish(id, files_->error(slots_[id].read, ECANCELED));
  }
  if (waiting_.empty()) return;
  offered_.clear();
  for (size_t i = 0; i < waiting_.size() && prepare(waiting_[i]); ++i) continue;
  if (offered_.empty()) return;
  for (size_t taken = queue_->push(offered_); taken > 0; --taken) {
    slots_[waiting_.front()].in_kernel = true;
    waiting_.pop_front();
  }
}

// False where it must wait for a descriptor, until one is free; or if it was the first and failed.
bool Reads::prepare(uint32_t id) {
  Slot& slot = slots_[id];
  if (!slot.fd && !registered_[slot.read.file]) {
    try {
      slot.fd = files_->descriptor(slot.read.file);
    } catch (const Error& error) {
      const bool others = slots_.size() > free_.size() + waiting_.size() || !offered_.empty();
      if (!others) {
        waiting_.pop_front();
        finish(id, error);
      }
      return false;
    }
  }
  offered_.push_back({.id = id,
                      .file = slot.read.file,
                      .fd = slot.fd ? slot.fd->get() : -1,
                      .part = slot.progress.next()});
  return true;
}

void Reads::reap() {
  KernelAnswer answers[64];
  for (;;) {
    const size_t count = queue_->reap(answers);
    for (size_t i = 0; i < count; ++i) took(answers[i]);
    if (count < std::size(answers)) return;
  }
}

void Reads::drop_all() {
  dropped_ = true;
  for (uint32_t id = 0; id < slots_.size(); ++id) {
    if (slots_[id].in_kernel) queue_->drop(id);
  }
  reap();
}

void Reads::took(const KernelAnswer& answer) {
  Slot& slot = slots_[answer.id];
  slot.in_kernel = false;
  switch (slot.progress.took(answer.result)) {
    case ReadProgress::State::more:
      return waiting_.push_back(answer.id);
    case ReadProgress::State::done:
      return finish(answer.id, std::nullopt);
    case ReadProgress::State::failed:
      return finish(answer.id, files_->error(slot.read, slot.progress.error_number(),
                                             slot.progress.arrived()));
  }
}

void Reads::finish(uint32_t id, std::optional<Error> error) {
  completed_.push_back({.tag = slots_[id].read.tag, .error = std::move(error)});
  slots_[id].progress = {};
  slots_[id].fd.reset();
  free_.push_back(id);
}

size_t Reads::collect(std::span<Completion> done) {
  const size_t count = std::min(done.size(), completed_.size());
  for (size_t i = 0; i < count; ++i) {
    done[i] = std::move(completed_.front());
    completed_.pop_front();
  }
  in_flight_ -= count;
  return count;
}

size_t Reads::wait(std::span<Completion> done, Deadline deadline) {
  for (bool rang = wake_->take();; rang = wake_->take()) {
    reap();
    if (cancelled_ && !dropped_) drop_all();
    push();
    const size_t count = collect(done);
    if (count > 0 || rang) return count;
    const Deadline until = waiting_.empty() ? deadline : std::min(deadline, Clock::now() + kSoon);
    if (!wake_->sleep(until) && until == deadline) return 0;
  }
}

void Reads::cancel() {
  cancelled_ = true;
  wake_->ring();
}

void Reads::outlast() {
  // The eventfd is the lane's: its rings are not taken here.
  constexpr std::chrono::milliseconds kLongestPause{500};
  std::chrono::milliseconds pause{5};
  while (free_.size() < slots_.size()) {
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, kLongestPause);
    reap();
    push();
  }
}

class AsyncEngine final : public Engine {
 public:
  explicit AsyncEngine(AsyncParts parts) : reads_(std::make_unique<Reads>(std::move(parts))) {}

  // Nothing may land in memory that its owner is about to free, so the kernel is waited for; where
  // that takes too long, a thread stays behind until it has let go.
  ~AsyncEngine() override {
    cancel();
    const Deadline deadline = Clock::now() + kPatienceWithKernel;
    Completion ignored[16];
    while (in_flight() > 0 && Clock::now() < deadline) wait(ignored, deadline);
    if (in_flight() == 0) return;
    Reads* left = reads_.release();
    try {
      start_thread("outlasts reads", [left] { std::unique_ptr<Reads>(left)->outlast(); }).detach();
    } catch (const Error&) {
      // No thread to be had: they go with the process.
    }
  }

  [[nodiscard]] EngineTraits traits() const override { return reads_->traits(); }
  uint32_t open(const Blob& blob) override { return reads_->open(blob); }
  void attach(const Region&) override {}
  void submit(std::span<const Read> reads) override { reads_->submit(reads); }
  size_t wait(std::span<Completion> done, Deadline deadline) override {
    return reads_->wait(done, deadline);
  }
  void cancel() override { reads_->cancel(); }

 private:
  [[nodiscard]] size_t in_flight() const { return reads_->in_flight(); }

  std::unique_ptr<Reads> reads_;
};

}  // namespace

std::unique_ptr<Engine> make_async_engine(AsyncParts parts) {
  return std::make_unique<AsyncEngine>(std::move(parts));
}

}  // namespace inrush
