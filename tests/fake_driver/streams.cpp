// The machine's streams and events: a thread each stream, which does one operation after another.
#include <algorithm>

#include "tests/fake_driver/machine.h"

namespace fake {

void Machine::run(Stream* stream) {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stream->closing || !stream->operations.empty(); });
    if (stream->operations.empty()) return;
    const std::function<void()> operation = std::move(stream->operations.front());
    stream->operations.pop_front();
    lock.unlock();
    operation();
    lock.lock();
    ++stream->done;
    changed_.notify_all();
  }
}

// With the lock held.
void Machine::enqueue(Stream* stream, std::function<void()> operation) {
  ++stream->enqueued;
  stream->operations.push_back(std::move(operation));
  changed_.notify_all();
}

Stream* Machine::make_stream(int device, bool consumers) {
  const std::lock_guard lock(mutex_);
  auto* stream = new Stream;
  stream->id = next_stream_++;
  stream->device = device;
  stream->consumers = consumers;
  stream->thread = std::thread([this, stream] { run(stream); });
  streams_.insert(stream);
  return stream;
}

Stream* Machine::stream_of(Stream* stream, int device) {
  if (stream != nullptr) {
    const std::lock_guard lock(mutex_);
    return streams_.contains(stream) ? stream : nullptr;
  }
  {
    const std::lock_guard lock(mutex_);
    const auto found = defaults_.find(device);
    if (found != defaults_.end()) return found->second;
  }
  Stream* made = make_stream(device, true);
  const std::lock_guard lock(mutex_);
  return defaults_[device] = made;
}

Result Machine::destroy(Stream* stream) {
  {
    const std::lock_guard lock(mutex_);
    if (streams_.erase(stream) == 0) {
      blame("a stream was destroyed that is none");
      return kInvalidHandle;
    }
    stream->closing = true;
    changed_.notify_all();
  }
  stream->thread.join();
  delete stream;
  return kOk;
}

Event* Machine::make_event(int device) {
  const std::lock_guard lock(mutex_);
  auto* event = new Event;
  event->device = device;
  events_.insert(event);
  return event;
}

Result Machine::destroy(Event* event) {
  std::unique_lock lock(mutex_);
  if (!events_.contains(event)) {
    blame("an event was destroyed that is none");
    return kInvalidHandle;
  }
  changed_.wait(lock, [&] { return event->pending.empty(); });
  events_.erase(event);
  delete event;
  return kOk;
}

bool Machine::is_known(const Event* event) const {
  return events_.contains(const_cast<Event*>(event));
}

Result Machine::record(Event* event, Stream* stream) {
  if (instant_) return kOk;
  const std::lock_guard lock(mutex_);
  if (!is_known(event)) return kInvalidHandle;
  if (event->device != stream->device) {
    blame("an event of one device was recorded on a stream of another");
    return kInvalidHandle;
  }
  const uint64_t number = ++event->recorded;
  event->pending.insert(number);
  ++stream->clock[stream->id];
  merge(stream->clock, host_);
  event->clock = stream->clock;
  enqueue(stream, [this, event, number] {
    const std::lock_guard again(mutex_);
    event->pending.erase(number);
    changed_.notify_all();
  });
  return kOk;
}

Result Machine::wait(Stream* stream, Event* event) {
  if (instant_) return kOk;
  const std::lock_guard lock(mutex_);
  if (!is_known(event)) return kInvalidHandle;
  const uint64_t number = event->recorded;
  merge(stream->clock, event->clock);
  enqueue(stream, [this, event, number] {
    std::unique_lock again(mutex_);
    changed_.wait(again, [&] { return !is_known(event) || !event->pending.contains(number); });
  });
  return kOk;
}

Result Machine::query(Event* event) {
  if (instant_) return kOk;
  const std::lock_guard lock(mutex_);
  if (!is_known(event)) return kInvalidHandle;
  if (event->pending.contains(event->recorded)) return kNotReady;
  merge(host_, event->clock);
  return kOk;
}

Result Machine::synchronize(Event* event) {
  if (instant_) return kOk;
  std::unique_lock lock(mutex_);
  if (!is_known(event)) return kInvalidHandle;
  const uint64_t number = event->recorded;
  changed_.wait(lock, [&] { return !event->pending.contains(number); });
  merge(host_, event->clock);
  return kOk;
}

Result Machine::synchronize(Stream* stream) {
  std::unique_lock lock(mutex_);
  const Clock clock = stream->clock;
  changed_.wait(lock, [&] { return stream->done == stream->enqueued; });
  merge(host_, clock);
  return kOk;
}

}  // namespace fake
