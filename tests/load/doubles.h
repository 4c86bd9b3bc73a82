// Doubles of what lies far away: an object store or a peer, in memory, with the latency, the faults
// and the growing coverage of the real ones. They behave as later stores and engines will, and they
// are stricter: an engine checks what it is asked for, and that no byte has two writers at once.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "inrush/core/engine.h"
#include "inrush/core/store.h"

namespace inrush::test {

// The place itself: objects by name, shared by its store and by every engine. Any thread.
class Remote {
 public:
  using Bytes = std::vector<std::byte>;

  // Objects begin whole; cover() makes one grow from then on, as a peer's that is still loading.
  void put(const std::string& name, Bytes bytes);
  void cover(const std::string& name, uint64_t end);
  // Reads that touch this byte fail for ever.
  void break_at(const std::string& name, uint64_t offset);
  // What is not covered yet never will be.
  void die();

  [[nodiscard]] std::vector<std::string> list() const;
  [[nodiscard]] std::optional<Blob> find(const std::string& name) const;
  [[nodiscard]] bool dead() const { return dead_; }
  [[nodiscard]] bool covers(const std::string& name, uint64_t end) const;
  [[nodiscard]] bool broken(const std::string& name, uint64_t offset, uint64_t size) const;
  // Copies what there is of [offset, offset + size) and returns how much that was.
  uint64_t copy(const std::string& name, uint64_t offset, uint64_t size, std::byte* target) const;

  // Memory that a read in flight may write; false if another one may too.
  bool claim(const std::byte* begin, uint64_t size);
  void unclaim(const std::byte* begin);

  std::atomic<int> engines{0};            // alive
  std::atomic<uint64_t> bytes_served{0};  // wanted bytes of reads that succeeded
  std::atomic<int> violations{0};         // of the contract, by whoever drives the engines

 private:
  struct Object {
    Bytes bytes;
    uint64_t covered = 0;
    uint64_t generation = 0;
    std::set<uint64_t> broken;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Object> objects_;
  std::map<const std::byte*, const std::byte*> claims_;
  std::atomic<bool> dead_{false};
};

// A bucket or a peer: any name, identity by ETag, no file descriptor.
class RemoteStore final : public Store {
 public:
  explicit RemoteStore(std::shared_ptr<Remote> remote) : remote_(std::move(remote)) {}
  [[nodiscard]] std::string uri() const override { return "double://bucket"; }
  std::vector<std::string> list() override { return remote_->list(); }
  Blob open(const std::string& name) override;
  Identity identity(const Blob& blob) override;
  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override;

 private:
  std::shared_ptr<Remote> remote_;
};

// How one engine of a Remote behaves.
struct Nature {
  std::chrono::microseconds latency{0};
  std::chrono::microseconds jitter{0};  // added at random, so completions change order
  uint64_t bytes_per_second = 0;        // of all reads together; 0: no limit
  double failing = 0;                   // share of reads that fail once with Error{source}
  uint64_t dies_after = UINT64_MAX;     // reads; then wait() throws, as from a broken queue pair
  uint64_t gives_up = UINT64_MAX;       // this read comes to nothing, as one that was cancelled
  std::chrono::milliseconds deaf{0};    // reads in flight at a cancel come after that long anyhow
  uint32_t memory_align = 1;
  uint32_t offset_align = 1;
  uint32_t most_in_flight = 64;
  uint64_t seed = 1;
};

// Reads a Remote. Time passes in wait(); there is no thread of its own.
class RemoteEngine final : public Engine {
 public:
  RemoteEngine(std::shared_ptr<Remote> remote, const Nature& nature, int wake_fd);
  ~RemoteEngine() override;
  [[nodiscard]] EngineTraits traits() const override;
  uint32_t open(const Blob& blob) override;
  void attach(const Region&) override {}
  void submit(std::span<const Read> reads) override;
  size_t wait(std::span<Completion> done, Deadline deadline) override;
  void cancel() override;

 private:
  struct Flight {
    Read read;
    bool failing = false;
  };

  void check(const Read& read);
  size_t collect(std::span<Completion> done);
  std::optional<Error> finish(const Flight& flight);
  Error failure(const Read& read, ErrorCode code, const char* why) const;
  [[nodiscard]] Deadline next_event() const;

  std::shared_ptr<Remote> remote_;
  const Nature nature_;
  const int wake_fd_;
  std::mt19937_64 random_;
  std::vector<std::string> files_;
  std::multimap<Deadline, Flight> flights_;  // by when they are done
  Deadline line_free_{};
  uint64_t reads_ = 0;
  std::atomic<int64_t> cancelled_at_{0};  // of Clock, 0: not
};

}  // namespace inrush::test
