// The consumer's side of the Board: memory ahead of the reads, tensors in order, errors.
#include <fmt/format.h>

#include <algorithm>

#include "inrush/base/align.h"
#include "inrush/load/board.h"

namespace inrush {
namespace {

constexpr double kWaitWorthShowing = 1e-4;  // seconds
constexpr auto kMappedCheckEvery = std::chrono::microseconds(100);
// Memory that a stream of tensors asks for at once, if there is time: an allocator packs what it is
// asked for together, and a tensor at a time comes within reach as one is delivered.
constexpr uint64_t kWorthAsking = 16 * kMiB;
constexpr uint64_t kShareWorthAsking = 8;  // of the budget, where that is less

}  // namespace

// The caller's memory, in batches, for what the budget lets the lanes read ahead; at least for all
// that shares a range with the oldest target. Of a load that collects as much again at each call.
bool Board::allocate_ahead() {
  const Allocator& allocator = preparation_.options.allocator;
  const auto& targets = preparation_.plan.targets;
  if (!allocator || allocated_ == targets.size()) return false;
  const auto all = static_cast<uint32_t>(targets.size());
  const uint32_t head = std::min(cursor_, all - 1);
  const uint32_t due = sink_->layout().needed_for[head];
  uint32_t end = std::max(allocated_, due);
  uint64_t ahead = 0;
  for (uint32_t i = preparation_.options.collect ? allocated_ : head; i < end; ++i) {
    ahead += targets[i].size;
  }
  while (end < all && ahead < preparation_.budget) {
    const uint32_t next = std::min(all, std::max(end + 1, sink_->layout().needed_for[end]));
    for (; end < next; ++end) ahead += targets[end].size;
  }
  if (end <= allocated_) return false;
  uint64_t fresh = 0;
  for (uint32_t i = allocated_; i < end; ++i) fresh += targets[i].size;
  const bool may_wait = !preparation_.options.collect && due <= allocated_ && end < all;
  if (may_wait && fresh < std::min(kWorthAsking, preparation_.budget / kShareWorthAsking)) {
    return false;
  }
  std::vector<MemoryRequest> requests;
  for (uint32_t i = allocated_; i < end; ++i) {
    if (sink_->layout().given[i]) continue;
    const TensorInfo& tensor = index().tensors[targets[i].tensor];
    requests.push_back({i, tensor.name, tensor.dtype, targets[i].shape, targets[i].size,
                        alignment_of(tensor), targets[i].file_offset, i < due});
  }
  std::vector<Memory> memories = allocator(requests);
  const size_t answered = memories.size();
  const bool partly = answered < requests.size();
  if (answered > requests.size() || (partly && requests[answered].due)) {
    throw Error(ErrorCode::usage,
                fmt::format("the allocator answered {} of {} requests", answered, requests.size()));
  }
  for (size_t i = 0; i < answered; ++i) {
    const uint32_t least = alignment_of(requests[i].dtype);
    if (!is_aligned(memories[i].data, least)) {
      throw Error(ErrorCode::usage, fmt::format("memory for tensor {} is not aligned to {} bytes",
                                                requests[i].name, least));
    }
    sink_->provide(requests[i].target, std::move(memories[i]));
  }
  allocated_ = partly ? requests[answered].target : end;
  const std::lock_guard lock(mutex_);
  wake_lanes();
  return !partly;
}

// What a pool must have for a caller who keeps no more than the tensor delivered last: that one,
// and all that is due together.
uint64_t Board::least_pool() const {
  const auto& targets = preparation_.plan.targets;
  std::vector<uint64_t> before(targets.size() + 1);  // bytes of the targets before each
  uint64_t largest = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    before[i + 1] = before[i] + targets[i].size;
    largest = std::max(largest, targets[i].size);
  }
  uint64_t due = 0;
  for (uint32_t i = 0; i < targets.size(); ++i) {
    due = std::max(due, before[sink_->layout().needed_for[i]] - before[i]);
  }
  return largest + due;
}

std::optional<uint32_t> Board::deliverable() {
  if (preparation_.options.order == Order::ready) {
    if (ready_.empty()) return std::nullopt;
    const uint32_t target = ready_.front();
    ready_.pop_front();
    return target;
  }
  if (whole_[cursor_] == 0) return std::nullopt;
  return cursor_;
}

std::optional<Tensor> Board::next(Deadline deadline, bool& timed_out) {
  timed_out = false;
  allocate_ahead();
  std::unique_lock lock(mutex_);
  const Clock::time_point asked = Clock::now();
  std::optional<uint32_t> target;
  bool late = false;
  while (true) {
    if (error_) throw_error(lock);
    if (delivered_ == whole_.size()) return std::nullopt;
    target = deliverable();
    if (target || late) break;
    late = changed_.wait_until(lock, deadline) == std::cv_status::timeout;
  }
  const double waited = std::chrono::duration<double>(Clock::now() - asked).count();
  times_.consumer_wait += waited;
  if (preparation_.options.trace && waited > kWaitWorthShowing) {
    const double now = seconds_since_start();
    trace_.push_back({"consumer", "", 0, 0, now - waited, now, "wait"});
  }
  timed_out = !target;
  if (timed_out) return std::nullopt;
  ++delivered_;
  whole_[*target] = 2;
  while (cursor_ < whole_.size() && whole_[cursor_] == 2) ++cursor_;
  const bool last = delivered_ == whole_.size();
  lock.unlock();
  if (last) check_mapped();
  return deliver(*target);
}

Tensor Board::deliver(uint32_t index_of_target) {
  const Target& target = preparation_.plan.targets[index_of_target];
  const TensorInfo& info = index().tensors[target.tensor];
  check_identity(info.blob, sink_->layout().mapped[index_of_target]);
  Tensor tensor;
  tensor.name = info.name;
  tensor.dtype = info.dtype;
  tensor.shape = target.shape;
  tensor.consumer = target.consumer;
  tensor.mapped = sink_->layout().mapped[index_of_target];
  tensor.memory = sink_->take(index_of_target);
  waiting_.room();
  waiting_.move_horizon(horizon());
  return tensor;
}

// Only when bytes of the blob have come since it was last looked at; but mapped bytes are the
// file's up to the moment they are handed over.
void Board::check_identity(uint32_t blob, bool mapped) {
  const uint32_t arrivals = arrivals_[blob].load(std::memory_order_relaxed);
  const Clock::time_point now_looking = Clock::now();
  if (checked_[blob].load(std::memory_order_relaxed) == arrivals &&
      (!mapped || now_looking - mapped_checked_.load() < kMappedCheckEvery)) {
    return;
  }
  if (mapped) mapped_checked_ = now_looking;
  for (uint32_t source = 0; source < sources_.count(); ++source) {
    if (!mapped && sources_.count() > 1 && !sources_.used(source, blob)) continue;
    check_source(source, blob);
  }
  checked_[blob].store(arrivals, std::memory_order_relaxed);
}

void Board::check_source(uint32_t source, uint32_t blob) {
  const Blob& opened = sources_.blob(source, blob);
  Identity now;
  try {
    now = sources_.store(source).identity(opened);
  } catch (const Error&) {
    // Of a mirror that is gone what came counts as it was when it was last looked at.
    if (sources_.given_up(source)) return;
    throw;
  }
  if (now == opened.identity) return;
  const Error changed(
      ErrorCode::data,
      fmt::format("read {} [0, +{}): the file changed while it was being read ({})", opened.name,
                  opened.size,
                  now.size != opened.identity.size ? fmt::format("its size is {} now", now.size)
                                                   : "it was written to, replaced or moved"));
  {
    const std::lock_guard lock(mutex_);
    error_ = changed;
  }
  stop(changed);
  throw changed;
}

// Before the last tensor is handed over: what was mapped is looked at whenever that was last done.
void Board::check_mapped() {
  uint32_t previous = UINT32_MAX;
  const auto& targets = preparation_.plan.targets;
  for (uint32_t i = 0; i < targets.size(); ++i) {
    const uint32_t blob = index().tensors[targets[i].tensor].blob;
    if (blob == previous || !sink_->layout().mapped[i]) continue;
    previous = blob;
    mapped_checked_ = Clock::time_point{};
    check_identity(blob, true);
  }
}

bool Board::wait(Deadline deadline) {
  {
    std::unique_lock lock(mutex_);
    const bool done = changed_.wait_until(
        lock, deadline, [this] { return error_ || whole_count_ == whole_.size(); });
    if (error_) throw_error(lock);
    if (!done) return false;
  }
  std::vector<uint32_t> used;
  for (const Range& range : preparation_.plan.ranges) {
    if (used.empty() || used.back() != range.blob) used.push_back(range.blob);
  }
  for (const uint32_t blob : used) check_identity(blob, false);
  return true;
}

// Lanes are drained first, within the deadline, so that what the caller frees is quiet.
void Board::throw_error(std::unique_lock<std::mutex>& lock) {
  const Deadline deadline = std::max(lanes_.stopped, start_) + kShutDown;
  changed_.wait_until(lock, deadline, [this] { return lanes_.alive == 0; });
  throw Error(*error_);
}

}  // namespace inrush
