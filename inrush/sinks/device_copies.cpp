#include "inrush/sinks/device_copies.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "inrush/base/thread.h"

namespace inrush {
namespace {

constexpr auto kPatienceWithCopies = std::chrono::seconds(2);

struct Pending {
  vendor::Event event;
  uint64_t tag;
  uint64_t order;  // of submission
  uint64_t bytes;
};

struct CopyStream {
  vendor::Stream stream = nullptr;
  uint64_t fences = 0;  // it has waited for that many
  std::deque<Pending> pending;
};

}  // namespace

// The thread keeps it alive where the device does not answer.
struct DeviceCopies::Shared {
  Shared(std::shared_ptr<const Device> on, const GovernorLimits& limits)
      : device(std::move(on)), governor(limits) {}
  ~Shared() { give_back(); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  void make(uint32_t count);
  void give_back() noexcept;
  vendor::Event take_event();
  CopyStream& next_stream();
  void heed_fences(CopyStream& stream);
  [[nodiscard]] std::optional<vendor::Event> oldest() const;
  void sweep(std::vector<uint64_t>& done);
  void watch();
  void quiet() noexcept;

  const std::shared_ptr<const Device> device;
  Callbacks callbacks;
  std::mutex calling;  // while a callback runs

  std::mutex mutex;
  std::condition_variable changed;
  Governor governor;                  // of how many streams take copies
  std::vector<CopyStream> streams;    // as many as it may come to, and last the consumer's
  std::vector<vendor::Event> events;  // not in use
  vendor::Event fence = nullptr;
  vendor::Stream consumer = nullptr;  // that the fence was recorded on
  uint64_t fences = 0;
  uint64_t submitted = 0;
  bool closed = false;
  bool ended = false;
};

void DeviceCopies::Shared::make(uint32_t count) {
  fence = device->make_event();
  streams.reserve(count + 1);
  for (uint32_t i = 0; i < count; ++i) streams.emplace_back().stream = device->make_stream();
  streams.emplace_back();  // no stream of ours: fences that somebody waits for
}

void DeviceCopies::Shared::give_back() noexcept {
  for (CopyStream& one : streams) {
    for (const Pending& pending : one.pending) device->destroy(pending.event);
    if (one.stream != nullptr) device->destroy(one.stream);
  }
  streams.clear();
  for (vendor::Event event : std::exchange(events, {})) device->destroy(event);
  if (fence != nullptr) device->destroy(std::exchange(fence, nullptr));
}

vendor::Event DeviceCopies::Shared::take_event() {
  if (events.empty()) return device->make_event();
  vendor::Event event = events.back();
  events.pop_back();
  return event;
}

CopyStream& DeviceCopies::Shared::next_stream() {
  const auto end = streams.begin() + governor.target();
  return *std::min_element(streams.begin(), end, [](const auto& a, const auto& b) {
    return a.pending.size() < b.pending.size();
  });
}

void DeviceCopies::Shared::heed_fences(CopyStream& stream) {
  if (stream.fences == fences || stream.stream == nullptr) return;
  device->wait_on_stream(stream.stream, fence);
  stream.fences = fences;
}

std::optional<vendor::Event> DeviceCopies::Shared::oldest() const {
  const CopyStream* found = nullptr;
  for (const CopyStream& one : streams) {
    if (one.pending.empty()) continue;
    if (!found || one.pending.front().order < found->pending.front().order) found = &one;
  }
  if (!found) return std::nullopt;
  return found->pending.front().event;
}

void DeviceCopies::Shared::sweep(std::vector<uint64_t>& done) {
  const Clock::time_point now = Clock::now();
  for (CopyStream& one : streams) {
    while (!one.pending.empty() && device->is_done(one.pending.front().event)) {
      governor.delivered(one.pending.front().bytes, now);
      done.push_back(one.pending.front().tag);
      events.push_back(one.pending.front().event);
      one.pending.pop_front();
    }
  }
}

void DeviceCopies::Shared::watch() {
  try {
    while (true) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return closed || oldest(); });
      const std::optional<vendor::Event> event = oldest();
      if (!event) return;
      lock.unlock();
      device->wait(*event);
      std::vector<uint64_t> done;
      lock.lock();
      sweep(done);
      lock.unlock();
      const std::lock_guard call(calling);
      for (const uint64_t tag : done) {
        if (callbacks.done) callbacks.done(tag);
      }
      if (callbacks.swept) callbacks.swept();
    }
  } catch (const Error& error) {
    const std::lock_guard call(calling);
    if (callbacks.failed) callbacks.failed(error);
  } catch (const std::bad_alloc&) {
    const std::lock_guard call(calling);
    if (callbacks.failed) callbacks.failed(Error(ErrorCode::memory, "out of memory"));
  }
}

// A batch of which only a part was taken has no event: the streams themselves are waited for.
void DeviceCopies::Shared::quiet() noexcept {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return closed; });
  for (CopyStream& one : streams) {
    if (one.stream == nullptr) continue;
    try {
      device->wait(one.stream);
    } catch (const Error&) {  // what is lost copies nothing
    }
  }
  give_back();
  ended = true;
  changed.notify_all();
}

DeviceCopies::DeviceCopies(std::shared_ptr<const Device> device, const GovernorLimits& streams,
                           Callbacks callbacks)
    : shared_(std::make_shared<Shared>(std::move(device), streams)) {
  shared_->make(streams.most);
  shared_->callbacks = std::move(callbacks);
  thread_ = start_thread("copies to a device", [shared = shared_] {
    stay_on(shared->device->numa());
    shared->watch();
    shared->quiet();
  });
}

DeviceCopies::~DeviceCopies() { finish(Clock::now() + kPatienceWithCopies); }

void DeviceCopies::fence(vendor::Stream consumer, std::optional<uint64_t> tag) {
  Shared& shared = *shared_;
  const std::lock_guard lock(shared.mutex);
  // What is recorded on another stream would take the place of what the copies still have to wait
  // for on the one before.
  if (consumer != shared.consumer) {
    for (CopyStream& stream : shared.streams) shared.heed_fences(stream);
  }
  shared.device->record(shared.fence, consumer);
  shared.consumer = consumer;
  ++shared.fences;
  if (!tag) return;
  const vendor::Event event = shared.take_event();
  try {
    shared.device->record(event, consumer);
  } catch (...) {
    shared.events.push_back(event);
    throw;
  }
  shared.streams.back().pending.push_back({event, *tag, shared.submitted++, 0});
  shared.changed.notify_all();
}

void DeviceCopies::submit(std::span<const DeviceCopy> copies, uint64_t tag) {
  Shared& shared = *shared_;
  const std::lock_guard lock(shared.mutex);
  CopyStream& stream = shared.next_stream();
  shared.heed_fences(stream);
  const vendor::Event event = shared.take_event();
  uint64_t bytes = 0;
  try {
    for (const DeviceCopy& copy : copies) {
      shared.device->copy(copy, stream.stream);
      bytes += copy.rows * copy.row_size;
    }
    shared.device->record(event, stream.stream);
  } catch (...) {
    shared.events.push_back(event);
    throw;
  }
  stream.pending.push_back({event, tag, shared.submitted++, bytes});
  shared.changed.notify_all();
}

uint32_t DeviceCopies::streams() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->governor.target();
}

void DeviceCopies::fill_zeros(vendor::Address target, uint64_t size) {
  Shared& shared = *shared_;
  std::unique_lock lock(shared.mutex);
  CopyStream& stream = shared.streams.front();
  shared.heed_fences(stream);
  const vendor::Event event = shared.take_event();
  try {
    shared.device->fill_zeros(target, size, stream.stream);
    shared.device->record(event, stream.stream);
    lock.unlock();
    shared.device->wait(event);
    lock.lock();
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    shared.events.push_back(event);
    throw;
  }
  shared.events.push_back(event);
}

bool DeviceCopies::finish(Deadline deadline) {
  if (!thread_.joinable()) return shared_->ended;
  std::unique_lock lock(shared_->mutex);
  shared_->closed = true;
  shared_->changed.notify_all();
  const bool ended = shared_->changed.wait_until(lock, deadline, [&] { return shared_->ended; });
  lock.unlock();
  if (ended) {
    thread_.join();
    return true;
  }
  {
    const std::lock_guard call(shared_->calling);
    shared_->callbacks = {};
  }
  thread_.detach();
  return false;
}

}  // namespace inrush
