#include "inrush/load/decoding.h"

#include <algorithm>

#include "inrush/base/align.h"
#include "inrush/base/thread.h"

namespace inrush {

Decoding::Decoding(uint32_t threads, Callbacks callbacks) : callbacks_(std::move(callbacks)) {
  while (threads_.size() < threads) {
    try {
      threads_.push_back(start_thread("decodes", [this] { work(); }));
    } catch (const Error&) {
      // Those that are there do the work of all.
      if (threads_.empty()) throw;
      return;
    }
  }
}

Decoding::~Decoding() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& [target, job] : jobs_) job.decoder->stop();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool Decoding::add(uint32_t target, std::unique_ptr<Decoder> decoder, uint64_t size) {
  if (!decoder) return false;
  const std::lock_guard lock(mutex_);
  Job& job = jobs_[target];
  job.traits = decoder->traits();
  job.decoder = std::move(decoder);
  job.size = size;
  if (size == 0) pending_.push_back(target);
  wake_.notify_one();
  return true;
}

bool Decoding::has(uint32_t target) const {
  const std::lock_guard lock(mutex_);
  return jobs_.contains(target);
}

void Decoding::arrived(uint32_t target, std::byte* data, uint64_t offset, uint64_t size,
                       bool cached) {
  std::unique_lock lock(mutex_);
  Job& job = jobs_.at(target);
  job.data = data;
  uint64_t end = offset + size;
  auto next = job.arrived.lower_bound(offset);
  if (next != job.arrived.end() && next->first == end) {
    end = next->second;
    next = job.arrived.erase(next);
  }
  if (next != job.arrived.begin() && std::prev(next)->second == offset) {
    std::prev(next)->second = end;
  } else {
    job.arrived.emplace(offset, end);
  }
  if (cached && job.traits.in_passing) {
    decode_what_is_there(target, job, lock);
  } else if (takes_more(job)) {
    pending_.push_back(target);
    wake_.notify_one();
  }
}

bool Decoding::takes_more(const Job& job) { return job.workers == 0 || job.traits.concurrent; }

// Whole chunks only, but for the tensor's last one.
std::optional<Decoding::Stretch> Decoding::next_stretch(const Job& job) {
  const uint64_t chunk = std::max<uint64_t>(job.traits.chunk_size, 1);
  for (const auto& [start, stop] : job.arrived) {
    if (job.traits.order == DecodeOrder::in_order && start != job.decoded) return std::nullopt;
    const uint64_t first = (start + chunk - 1) / chunk * chunk;
    const uint64_t last = stop == job.size ? stop : stop / chunk * chunk;
    if (first >= last) continue;
    // At most 4 MiB or one chunk at a time, so that a stop is heard soon.
    const uint64_t step = std::max(chunk, 4 * kMiB / chunk * chunk);
    return Stretch{first, std::min(last - first, step)};
  }
  return std::nullopt;
}

// What lies before and after it in its run stays to be done.
std::optional<Decoding::Stretch> Decoding::take_stretch(Job& job) {
  const std::optional<Stretch> stretch = next_stretch(job);
  if (!stretch) return std::nullopt;
  const auto run = std::prev(job.arrived.upper_bound(stretch->offset));
  const auto [start, stop] = *run;
  const uint64_t end = stretch->offset + stretch->size;
  job.arrived.erase(run);
  if (start < stretch->offset) job.arrived.emplace(start, stretch->offset);
  if (end < stop) job.arrived.emplace(end, stop);
  return stretch;
}

bool Decoding::decode_some(uint32_t target, Job& job, std::unique_lock<std::mutex>& lock) {
  const std::optional<Stretch> stretch = take_stretch(job);
  // The last thread at it ends it.
  if (!stretch && (job.decoded != job.size || job.workers > 1)) return false;
  if (stretch && job.traits.concurrent && next_stretch(job)) {
    pending_.push_back(target);
    wake_.notify_one();
  }
  std::string digest;
  std::byte* const data = job.data;
  lock.unlock();
  try {
    if (stretch) {
      job.decoder->update(stretch->offset, {data + stretch->offset, stretch->size});
    } else {
      digest = job.decoder->finish();
    }
  } catch (const std::exception& error) {
    const auto* const known = dynamic_cast<const Error*>(&error);
    callbacks_.failed(known ? *known : Error(ErrorCode::memory, error.what()));
    lock.lock();
    return false;
  }
  if (!stretch) callbacks_.decoded(target, std::move(digest));
  lock.lock();
  if (!stretch) {
    jobs_.erase(target);
    return false;
  }
  job.decoded += stretch->size;
  return true;
}

void Decoding::decode_what_is_there(uint32_t target, Job& job, std::unique_lock<std::mutex>& lock) {
  ++job.workers;
  while (!stopping_ && decode_some(target, job, lock)) {
  }
  const auto still = jobs_.find(target);
  if (still != jobs_.end()) --still->second.workers;
}

void Decoding::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !pending_.empty(); });
    if (stopping_) return;
    const uint32_t target = pending_.front();
    pending_.pop_front();
    const auto found = jobs_.find(target);
    if (found == jobs_.end() || !takes_more(found->second)) continue;
    decode_what_is_there(target, found->second, lock);
  }
}

}  // namespace inrush
