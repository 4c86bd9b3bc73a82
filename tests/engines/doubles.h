// An engine as later ones will be: a peer or a device that serves bytes by name rather than by
// descriptor, writes only pinned memory that was attached, at any byte, answers in any order, and
// can serve only what has arrived so far. Reads beyond that wait until it grows.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "inrush/core/engine.h"
#include "inrush/engines/wake.h"

namespace inrush::testing {

class RemoteEngine final : public Engine {
 public:
  using Blobs = std::map<std::string, std::vector<std::byte>>;

  // `blobs` is what the other end has, `covered` how many bytes of each it can serve at first.
  RemoteEngine(const Blobs& blobs, uint64_t covered, const EngineOptions& options)
      : blobs_(blobs), covered_(covered), most_(options.depth), wake_(options.wake_fd) {}

  // From any thread: bytes [0, covered) of every blob can be served from now on.
  void grow(uint64_t covered) {
    covered_ = covered;
    wake_.ring();
  }

  // From any thread: the other end is gone; what is in flight and what comes fails.
  void die() {
    dead_ = true;
    wake_.ring();
  }

  [[nodiscard]] EngineTraits traits() const override {
    EngineTraits traits;
    traits.name = "remote";
    traits.memory_kinds = 1U << static_cast<uint32_t>(MemoryKind::pinned);
    traits.most_in_flight = most_;
    return traits;
  }

  uint32_t open(const Blob& blob) override {
    if (!blobs_.contains(blob.name)) {
      throw Error(ErrorCode::source, "open " + blob.name + " via remote: the peer has none");
    }
    files_.push_back(blob.name);
    return static_cast<uint32_t>(files_.size() - 1);
  }

  void attach(const Region& region) override {
    if (region.kind == MemoryKind::pinned) pinned_.push_back(region);
  }

  void submit(std::span<const Read> reads) override {
    if (reads_.size() + reads.size() > most_) throw Error(ErrorCode::usage, "too many in flight");
    for (const Read& read : reads) {
      const bool registered = std::any_of(pinned_.begin(), pinned_.end(), [&](const Region& in) {
        return read.target >= in.data && read.target + read.size <= in.data + in.size;
      });
      if (!registered) throw Error(ErrorCode::usage, "the target is not in attached pinned memory");
    }
    reads_.insert(reads_.end(), reads.begin(), reads.end());
    wake_.ring();
  }

  size_t wait(std::span<Completion> done, Deadline deadline) override {
    const bool rang = wake_.take();
    const size_t count = serve(done);
    if (count > 0 || rang || !wake_.sleep(deadline)) return count;
    wake_.take();
    return serve(done);
  }

  void cancel() override {
    cancelled_ = true;
    wake_.ring();
  }

 private:
  size_t serve(std::span<Completion> done) {
    std::shuffle(reads_.begin(), reads_.end(), random_);
    size_t count = 0;
    for (size_t i = 0; i < reads_.size() && count < done.size();) {
      const Read& read = reads_[i];
      const auto& bytes = blobs_.at(files_.at(read.file));
      const uint64_t end = std::min<uint64_t>(read.offset + read.size, bytes.size());
      std::optional<Error> error;
      if (cancelled_) {
        error = Error(ErrorCode::cancelled, "cancelled");
      } else if (dead_) {
        error = Error(ErrorCode::source, "read " + files_[read.file] + " via remote: peer is gone");
      } else if (end > covered_) {
        ++i;
        continue;
      } else if (end < read.offset + read.required) {
        error = Error(ErrorCode::data, "read " + files_[read.file] + " via remote: too short");
      } else {
        std::memcpy(read.target, bytes.data() + read.offset, end - read.offset);
      }
      done[count++] = {.tag = read.tag, .error = std::move(error)};
      reads_.erase(reads_.begin() + static_cast<ptrdiff_t>(i));
    }
    return count;
  }

  const Blobs& blobs_;
  std::atomic<uint64_t> covered_;
  std::atomic<bool> dead_{false};
  std::atomic<bool> cancelled_{false};
  uint32_t most_;
  Wake wake_;
  std::vector<std::string> files_;
  std::vector<Region> pinned_;
  std::deque<Read> reads_;
  std::mt19937_64 random_{1};
};

}  // namespace inrush::testing
