#include "tests/load/doubles.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cstring>

#include "inrush/base/fd.h"

namespace inrush::test {

void Remote::put(const std::string& name, Bytes bytes) {
  const std::lock_guard lock(mutex_);
  Object& object = objects_[name];
  object.covered = bytes.size();
  object.bytes = std::move(bytes);
  ++object.generation;
}

void Remote::cover(const std::string& name, uint64_t end) {
  const std::lock_guard lock(mutex_);
  objects_.at(name).covered = end;
}

void Remote::break_at(const std::string& name, uint64_t offset) {
  const std::lock_guard lock(mutex_);
  objects_.at(name).broken.insert(offset);
}

void Remote::die() { dead_ = true; }

std::vector<std::string> Remote::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, object] : objects_) names.push_back(name);
  return names;
}

std::optional<Blob> Remote::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = objects_.find(name);
  if (found == objects_.end()) return std::nullopt;
  Blob blob;
  blob.name = name;
  blob.size = found->second.bytes.size();
  blob.identity.size = blob.size;
  blob.identity.etag = fmt::format("\"{}\"", found->second.generation);
  return blob;
}

bool Remote::covers(const std::string& name, uint64_t end) const {
  const std::lock_guard lock(mutex_);
  const Object& object = objects_.at(name);
  return object.covered >= std::min<uint64_t>(end, object.bytes.size());
}

bool Remote::broken(const std::string& name, uint64_t offset, uint64_t size) const {
  const std::lock_guard lock(mutex_);
  const auto& broken = objects_.at(name).broken;
  const auto at = broken.lower_bound(offset);
  return at != broken.end() && *at < offset + size;
}

uint64_t Remote::copy(const std::string& name, uint64_t offset, uint64_t size,
                      std::byte* target) const {
  const std::lock_guard lock(mutex_);
  const Bytes& bytes = objects_.at(name).bytes;
  if (offset >= bytes.size()) return 0;
  const uint64_t count = std::min<uint64_t>(size, bytes.size() - offset);
  std::memcpy(target, bytes.data() + offset, count);
  return count;
}

bool Remote::claim(const std::byte* begin, uint64_t size) {
  const std::lock_guard lock(mutex_);
  const std::byte* end = begin + size;
  const auto after = claims_.lower_bound(begin);
  if (after != claims_.end() && after->first < end) return false;
  if (after != claims_.begin() && std::prev(after)->second > begin) return false;
  claims_.emplace(begin, end);
  return true;
}

void Remote::unclaim(const std::byte* begin) {
  const std::lock_guard lock(mutex_);
  claims_.erase(begin);
}

Blob RemoteStore::open(const std::string& name) {
  if (auto blob = remote_->find(name)) return *blob;
  throw Error(ErrorCode::source, fmt::format("open {}/{}: 404 NoSuchKey", uri(), name));
}

Identity RemoteStore::identity(const Blob& blob) { return open(blob.name).identity; }

void RemoteStore::read(const Blob& blob, uint64_t offset, std::span<std::byte> target) {
  if (remote_->copy(blob.name, offset, target.size(), target.data()) == target.size()) return;
  throw Error(ErrorCode::data, fmt::format("read {} [{}, +{}): the object ends before", blob.name,
                                           offset, target.size()));
}

RemoteEngine::RemoteEngine(std::shared_ptr<Remote> remote, const Nature& nature, int wake_fd)
    : remote_(std::move(remote)), nature_(nature), wake_fd_(wake_fd), random_(nature.seed) {
  ++remote_->engines;
}

RemoteEngine::~RemoteEngine() {
  if (!flights_.empty()) ++remote_->violations;  // its lane did not reap them
  --remote_->engines;
}

EngineTraits RemoteEngine::traits() const {
  EngineTraits traits;
  traits.name = "double";
  traits.memory_align = nature_.memory_align;
  traits.offset_align = nature_.offset_align;
  traits.most_in_flight = nature_.most_in_flight;
  return traits;
}

uint32_t RemoteEngine::open(const Blob& blob) {
  if (!remote_->find(blob.name)) {
    throw Error(ErrorCode::source, fmt::format("open {}: 404 NoSuchKey", blob.name));
  }
  files_.push_back(blob.name);
  return static_cast<uint32_t>(files_.size() - 1);
}

void RemoteEngine::check(const Read& read) {
  const uint64_t size = remote_->find(files_.at(read.file))->size;
  const bool whole = read.offset + read.size >= size;
  const bool sound = read.size > 0 && read.required > 0 && read.required <= read.size &&
                     read.offset + read.required <= size &&
                     read.offset % nature_.offset_align == 0 &&
                     (whole || read.size % nature_.offset_align == 0) &&
                     reinterpret_cast<uintptr_t>(read.target) % nature_.memory_align == 0;
  // Reads rounded out to an alignment may share the bytes between them that nobody wants.
  const bool sole = nature_.offset_align > 1 || remote_->claim(read.target, read.required);
  if (!sound || !sole) ++remote_->violations;
}

void RemoteEngine::submit(std::span<const Read> reads) {
  if (flights_.size() + reads.size() > nature_.most_in_flight) {
    throw Error(ErrorCode::usage, "double: more reads than may be in flight");
  }
  for (const Read& read : reads) {
    check(read);
    Deadline due = Clock::now() + nature_.latency;
    if (nature_.jitter.count() > 0) {
      due += std::chrono::microseconds(random_() % static_cast<uint64_t>(nature_.jitter.count()));
    }
    if (nature_.bytes_per_second > 0) {
      line_free_ = std::max(line_free_, Clock::now()) +
                   std::chrono::nanoseconds(read.size * 1'000'000'000 / nature_.bytes_per_second);
      due = std::max(due, line_free_);
    }
    const bool failing = std::uniform_real_distribution<double>(0, 1)(random_) < nature_.failing;
    flights_.emplace(due, Flight{read, failing});
  }
}

Error RemoteEngine::failure(const Read& read, ErrorCode code, const char* why) const {
  return {code, fmt::format("read {} [{}, +{}) via double: {}", files_[read.file], read.offset,
                            read.required, why)};
}

std::optional<Error> RemoteEngine::finish(const Flight& flight) {
  const Read& read = flight.read;
  const std::string& name = files_[read.file];
  if (nature_.offset_align == 1) remote_->unclaim(read.target);
  if ((cancelled_at_ != 0 && nature_.deaf.count() == 0) || reads_ == nature_.gives_up) {
    return failure(read, ErrorCode::cancelled, "cancelled");
  }
  if (flight.failing) return failure(read, ErrorCode::source, "503 SlowDown");
  if (remote_->broken(name, read.offset, read.required)) {
    return failure(read, ErrorCode::source, "Input/output error");
  }
  if (!remote_->covers(name, read.offset + read.required)) {
    return failure(read, ErrorCode::source, "Connection reset by peer");
  }
  if (remote_->copy(name, read.offset, read.size, read.target) < read.required) {
    return failure(read, ErrorCode::data, "the object ends before");
  }
  remote_->bytes_served += read.required;
  return std::nullopt;
}

size_t RemoteEngine::collect(std::span<Completion> done) {
  size_t count = 0;
  const int64_t cancelled = cancelled_at_;
  const Deadline now = Clock::now();
  const bool held = cancelled != 0 && now < Deadline(Deadline::duration(cancelled)) + nature_.deaf;
  for (auto it = flights_.begin(); it != flights_.end() && count < done.size() && !held;) {
    const Read& read = it->second.read;
    const bool due =
        it->first <= now && (it->second.failing || remote_->dead() ||
                             remote_->covers(files_[read.file], read.offset + read.required));
    if (!due && cancelled == 0) {
      ++it;
      continue;
    }
    done[count++] = {read.tag, finish(it->second)};
    it = flights_.erase(it);
    ++reads_;
  }
  return count;
}

Deadline RemoteEngine::next_event() const {
  const Deadline soon = Clock::now() + std::chrono::milliseconds(1);  // coverage is asked again
  return flights_.empty() ? Deadline::max() : std::max(flights_.begin()->first, soon);
}

size_t RemoteEngine::wait(std::span<Completion> done, Deadline deadline) {
  while (true) {
    if (const size_t count = collect(done)) return count;
    if (reads_ >= nature_.dies_after && cancelled_at_ == 0) {
      throw Error(ErrorCode::source, "double: the queue pair is in error state");
    }
    const Deadline until = std::min(deadline, next_event());
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(until - Clock::now());
    timespec timeout{0, static_cast<long>(std::clamp<int64_t>(left.count(), 0, 999'999)) * 1000};
    pollfd wake{wake_fd_, POLLIN, 0};
    if (::ppoll(&wake, 1, &timeout, nullptr) > 0) return collect(done);
    if (Clock::now() >= deadline) return collect(done);
  }
}

void RemoteEngine::cancel() {
  int64_t never = 0;
  cancelled_at_.compare_exchange_strong(never, Clock::now().time_since_epoch().count());
  ring(wake_fd_);
}

}  // namespace inrush::test
