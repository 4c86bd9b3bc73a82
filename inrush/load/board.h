// What the lanes and the consumer of a load share: plan, sink, queue, which targets are whole, the
// first error, counts. Lanes keep it alive, so memory outlives reads that are stuck in the kernel.
// Any thread, except that next(), take_ahead() and delivery belong to one consumer at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "inrush/base/governor.h"
#include "inrush/core/ledger.h"
#include "inrush/core/sink.h"
#include "inrush/load/counts.h"
#include "inrush/load/decoding.h"
#include "inrush/load/dropping.h"
#include "inrush/load/queue.h"
#include "inrush/load/sources.h"
#include "inrush/load/waiting_lanes.h"

namespace inrush {

class Board : public std::enable_shared_from_this<Board> {
 public:
  explicit Board(Preparation preparation);
  ~Board();

  // Starts the lanes of the choice, on the caller's thread.
  void begin();

  // For lanes.
  [[nodiscard]] bool stopped() const { return stopped_.load(std::memory_order_acquire); }
  [[nodiscard]] const Preparation& preparation() const { return preparation_; }
  [[nodiscard]] const Index& index() const { return preparation_.checkpoint.index(); }
  RangeQueue& queue() { return *queue_; }
  Sink& sink() { return *sink_; }
  [[nodiscard]] uint32_t horizon() const;
  void drop_pages(const Grant& grant, const LaneChoice& lane);
  void lane_began(int wake_fd);
  void lane_ended(int wake_fd);
  // Takes over what the sink has placed: targets may be whole now.
  void collect_placed(bool cached);
  // A read failed and its reader is done with the memory: queues it again, or fails the load.
  void read_failed(const Grant& grant, const Error& error, const LaneChoice& lane);
  // A lane cannot go on at all: another takes its place, or the load fails.
  void lane_failed(const Error& error, const LaneChoice& lane);
  // This lane's engine cannot read this file: another lane does, the rest stays as it is.
  void refuse_file(uint32_t blob, const Error& error, const LaneChoice& lane);
  void fail(const Error& error);
  WaitingLanes& waiting() { return waiting_; }
  void add(const TraceEvent& event);
  Sources& sources() { return sources_; }
  void count_budget_wait(double seconds);
  LoadCounts& counts() { return counts_; }
  // A stream delivered: more of them are started as needed.
  void streamed(uint64_t delivered_bytes);
  // Whether lanes that bypass the page cache should end: others here load the same blobs.
  [[nodiscard]] bool direct_retired() const { return direct_retired_.load(); }
  void look_around();
  [[nodiscard]] double seconds_since_start() const;

  // For the consumer.
  std::optional<Tensor> next(Deadline deadline, bool& timed_out);
  bool wait(Deadline deadline);
  void cancel();
  // Whether the load ended well, and showed what this path can do.
  [[nodiscard]] bool taught(Profile& learnt) const;
  // Cancels, waits a second at most until no lane is left, and gives the sink back then.
  void shut_down();

  [[nodiscard]] LoadStats stats() const;
  [[nodiscard]] std::vector<TraceEvent> trace() const;
  [[nodiscard]] std::map<std::string, std::string> digests() const;
  [[nodiscard]] Ledger ledger() const;

 private:
  void settle_queue();
  bool decode(uint32_t target);
  void cover_all();
  bool start_lane(const LaneChoice& lane, uint32_t most = UINT32_MAX);  // unless there were so many
  bool may_retry(const Grant& grant);
  void leave(const LaneChoice& lane, const Error& error);
  bool others_read(const LaneChoice& lane, const Error& error);
  void place_range(uint32_t range, bool cached, std::vector<uint32_t>& whole);
  void finish_targets(const std::vector<uint32_t>& whole);
  bool allocate_ahead();  // whether there was something to ask for
  [[nodiscard]] uint64_t least_pool() const;
  std::optional<uint32_t> deliverable();
  Tensor deliver(uint32_t target);
  void check_memory() const;
  void check_identity(uint32_t blob, bool mapped);
  void check_source(uint32_t source, uint32_t blob);
  void check_mapped();
  void stop(std::optional<Error> error);
  void wake_lanes();
  bool take_placed(bool cached);
  void end_collecting();
  void report_progress();
  [[noreturn]] void throw_error(std::unique_lock<std::mutex>& lock);

  Preparation preparation_;
  Sources sources_;
  std::unique_ptr<Sink> sink_;
  SinkStats last_sink_stats_;
  std::unique_ptr<RangeQueue> queue_;
  std::unique_ptr<Decoding> decoding_;
  std::unique_ptr<Dropping> dropping_;                  // where page_cache=drop was asked for
  std::vector<bool> resident_;                          // per range
  std::unique_ptr<std::atomic<uint64_t>[]> remaining_;  // per target: bytes
  std::unique_ptr<std::atomic<uint32_t>[]> arrivals_;   // per blob: ranges placed
  std::unique_ptr<std::atomic<uint32_t>[]> checked_;    // per blob: arrivals when last checked
  Clock::time_point start_;
  std::atomic<Clock::time_point> mapped_checked_{};

  std::atomic<bool> stopped_{false};
  WaitingLanes waiting_;
  std::atomic<bool> direct_retired_{false};
  std::atomic<bool> fell_back_{false};
  LoadCounts counts_;

  std::mutex collecting_;  // while a thread of the sink's hands over what was placed
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Error> error_;
  std::vector<uint8_t> whole_;     // per target
  std::vector<bool> refused_;      // per blob, by the choice's own engine; made at the first
  std::vector<uint8_t> attempts_;  // per range; made at the first failure
  std::deque<uint32_t> ready_;     // whole and not delivered, for Order::ready
  std::vector<int> wake_fds_;      // of living lanes
  std::vector<TraceEvent> trace_;
  std::map<std::string, std::string> digests_;
  Ledger ledger_;
  std::unique_ptr<Governor> stream_governor_;
  LaneCounts lanes_;
  std::vector<std::string> fallbacks_;  // why lanes were replaced
  uint32_t cursor_ = 0;                 // next target in order
  uint32_t delivered_ = 0;
  uint32_t whole_count_ = 0;
  uint32_t allocated_ = 0;  // targets below it have the caller's memory
  uint64_t mapped_bytes_ = 0;
  LoadTimes times_;
};

}  // namespace inrush
