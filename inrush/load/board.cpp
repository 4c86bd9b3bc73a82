#include "inrush/load/board.h"

#include <fmt/format.h>

#include <algorithm>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/base/thread.h"
#include "inrush/core/quoted.h"
#include "inrush/load/lane.h"
#include "inrush/sinks/host.h"
#include "inrush/sinks/pool.h"

namespace inrush {
namespace {

constexpr int64_t kReportEveryNs = 100'000'000;
constexpr uint64_t kLeastTeaching = 64 * kMiB;  // smaller loads say little about a path

SinkOptions sink_options(Preparation& preparation) {
  SinkOptions options;
  options.budget = preparation.budget;
  if (preparation.choice.to_device) options.device_staging = preparation.options.device_budget;
  options.register_pages = preparation.choice.register_pages;
  options.collect = preparation.options.collect;
  options.caller_memory = preparation.options.allocator || preparation.options.pool > 0;
  options.out = std::move(preparation.options.out);
  return options;
}

// One event for each run of ranges that are there without a read.
void trace_mapped(Board& board, const std::vector<bool>& done) {
  const auto& ranges = board.preparation().plan.ranges;
  for (size_t first = 0, next = 0; first < ranges.size(); first = next) {
    next = first + 1;
    if (!done[first]) continue;
    while (next < ranges.size() && done[next] && ranges[next].blob == ranges[first].blob) ++next;
    const Range& last = ranges[next - 1];
    const double now = board.seconds_since_start();
    board.add({"mapping", board.index().blobs[last.blob].name, ranges[first].offset,
               last.offset + last.size - ranges[first].offset, now, now, "map"});
  }
}

}  // namespace

Board::Board(Preparation preparation)
    : preparation_(std::move(preparation)),
      sources_(preparation_.checkpoint),
      start_(Clock::now()) {
  const Plan& plan = preparation_.plan;
  std::vector<Placement> placements = place(plan, preparation_.facts, preparation_.choice);
  // With mirrors a range may be read twice at once: each time into a slot of its own.
  if (sources_.count() > 1) placements.assign(plan.ranges.size(), Placement::copied);
  SinkOptions options = sink_options(preparation_);
  options.placed = [this](uint32_t slots) {
    {
      const std::lock_guard lock(collecting_);
      if (stopped()) return;
      take_placed(false);
    }
    waiting_.room(slots);  // even where nothing was: there may be more slots
    report_progress();
  };
  options.failed = [this](const Error& error) { fail(error); };
  const SinkFactory& make = preparation_.options.sink;
  sink_ =
      make ? make(index(), plan, std::move(placements), std::move(options))
           : std::make_unique<HostSink>(index(), plan, std::move(placements), std::move(options));
  if (!make && !preparation_.options.allocator && preparation_.options.collect) check_memory();
  const auto left_out = preparation_.checkpoint.left_out();
  fallbacks_.assign(left_out.begin(), left_out.end());
  remaining_ = std::make_unique<std::atomic<uint64_t>[]>(plan.targets.size());
  whole_.resize(plan.targets.size());
  arrivals_ = std::make_unique<std::atomic<uint32_t>[]>(index().blobs.size());
  checked_ = std::make_unique<std::atomic<uint32_t>[]>(index().blobs.size());
  for (size_t i = 0; i < plan.targets.size(); ++i) remaining_[i] = plan.targets[i].size;
  for (const Blob& blob : index().blobs) ledger_.add_blob(blob.name, blob.identity);
  if (preparation_.options.decoder) {
    decoding_ = std::make_unique<Decoding>(
        std::max(1U, preparation_.facts.machine.cpus),
        Decoding::Callbacks{[this](uint32_t target, std::string digest) {
                              {
                                const std::lock_guard lock(mutex_);
                                const uint32_t tensor = preparation_.plan.targets[target].tensor;
                                digests_[index().tensors[tensor].name] = std::move(digest);
                              }
                              finish_targets({target});
                            },
                            [this](const Error& error) { fail(error); }});
  }
}

// All at once in memory of our own: the kernel would end the process, not refuse it.
void Board::check_memory() const {
  uint64_t bytes = 0;
  const SinkLayout& layout = sink_->layout();
  for (size_t i = 0; i < preparation_.plan.targets.size(); ++i) {
    if (!layout.mapped[i] && !layout.given[i]) bytes += preparation_.plan.targets[i].size;
  }
  const MachineFact& machine = preparation_.facts.machine;
  if (bytes <= machine.memory_available + machine.swap_free) return;
  throw Error(
      ErrorCode::memory,
      fmt::format("load {}: the tensors take {} bytes of memory of their own, and {} are "
                  "available{}: take them one by one, or let them be mapped",
                  index().blobs.front().name, bytes, machine.memory_available,
                  machine.memory_limit == 0
                      ? ""
                      : fmt::format(" (the limit of the cgroup is {})", machine.memory_limit)));
}

Board::~Board() {
  end_collecting();
  decoding_.reset();  // its threads call back into this, and so may the sink's
  sink_.reset();
}

void Board::begin() {
  const Plan& plan = preparation_.plan;
  std::vector<uint32_t> whole;
  for (uint32_t i = 0; i < plan.targets.size(); ++i) {
    const Target& target = plan.targets[i];
    const TensorInfo& tensor = index().tensors[target.tensor];
    const bool decodes = decode(i);
    if (tensor.encoding == kSecretbox && !decodes) {
      throw Error(ErrorCode::usage,
                  fmt::format("load {} from {}: it is encrypted, and no key was given",
                              quoted(tensor.name), index().blobs[tensor.blob].name));
    }
    if (target.first_range > target.last_range && !decodes) whole.push_back(i);
  }
  if (const uint64_t pool = preparation_.options.pool; pool > 0) {
    preparation_.options.allocator = pool_allocator(std::max(pool, least_pool()));
  }
  allocate_ahead();
  settle_queue();
  for (uint32_t i = 0; i < plan.ranges.size(); ++i) {
    if (sink_->layout().placements[i] == Placement::mapped) mapped_bytes_ += plan.ranges[i].size;
  }
  finish_targets(whole);
  if (stopped()) return;
  if (preparation_.options.choice.page_cache == PageCache::drop) {
    dropping_ = std::make_unique<Dropping>(preparation_, sources_);
  }
  if (const auto& first = preparation_.choice.lanes; !first.empty() && first.front().sequential) {
    stream_governor_ = std::make_unique<Governor>(
        GovernorLimits{first.front().count, std::max(first.front().most, first.front().count), 1});
  }
  for (const LaneChoice& lane : preparation_.choice.lanes) {
    if (queue_->empty(lane.coverage)) continue;
    for (uint32_t i = 0; i < lane.count; ++i) start_lane(lane);
  }
  // Memory of a device takes its time, and lanes need not wait for all of it.
  while (preparation_.options.collect && !stopped() && allocate_ahead()) continue;
}

// Whether the target has a decoder from now on. Slices have none. A decoder sees what is delivered.
bool Board::decode(uint32_t target) {
  const TensorInfo& tensor = index().tensors[preparation_.plan.targets[target].tensor];
  const uint64_t size = preparation_.plan.targets[target].size;
  if (!decoding_ || size != delivered_size(tensor)) return false;
  const auto& decoder = preparation_.options.decoder;
  if (tensor.strides.empty()) return decoding_->add(target, decoder(tensor), tensor.size);
  TensorInfo seen = tensor;
  seen.size = size;
  return decoding_->add(target, decoder(seen), size);
}

// Mapped ranges that need no read are whole at once; every other range needs a lane that covers it.
void Board::settle_queue() {
  const Plan& plan = preparation_.plan;
  const auto count = static_cast<uint32_t>(plan.ranges.size());
  resident_.resize(count);
  std::vector<bool> done(count);
  const Choice& choice = preparation_.choice;
  const bool populates = std::any_of(choice.lanes.begin(), choice.lanes.end(),
                                     [](const auto& lane) { return lane.engine == "mmap"; });
  std::vector<uint32_t> whole;
  for (uint32_t i = 0; i < count; ++i) {
    resident_[i] = sources_.count() == 1 && !preparation_.choice.to_device &&
                   is_resident(plan.ranges[i], preparation_.facts);
    done[i] = sink_->layout().placements[i] == Placement::mapped && (resident_[i] || !populates);
    if (done[i]) place_range(i, false, whole);
  }
  queue_ = std::make_unique<RangeQueue>(resident_, done);
  if (preparation_.options.trace) trace_mapped(*this, done);
  cover_all();
  finish_targets(whole);
}

void Board::cover_all() {
  for (const Coverage coverage : {Coverage::resident, Coverage::cold}) {
    const auto& lanes = preparation_.choice.lanes;
    const bool covered = std::any_of(lanes.begin(), lanes.end(), [&](const LaneChoice& lane) {
      return lane.coverage == Coverage::all || lane.coverage == coverage;
    });
    if (covered || queue_->empty(coverage)) continue;
    preparation_.choice.lanes.push_back(fallback_lane(coverage, preparation_.facts));
  }
}

bool Board::start_lane(const LaneChoice& lane, uint32_t most) {
  uint32_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    if (lanes_.started >= most) return false;
    number = lanes_.started++;
    ++lanes_.alive;
    ++lanes_.alike[row_of(lane)];
  }
  ++counts_.reading;
  try {
    start_thread("reads", [self = shared_from_this(), lane, number] {
      stay_on(self->preparation_.facts.numa);  // and the threads of its engine with it
      run_lane(self, lane, number);
      if (--self->counts_.reading == 0 && self->dropping_) self->dropping_->finish();
      const std::lock_guard lock(self->mutex_);
      --self->lanes_.alive;
      self->changed_.notify_all();
    }).detach();
  } catch (const Error&) {
    --counts_.reading;
    const std::lock_guard lock(mutex_);
    --lanes_.alive;
    --lanes_.alike[row_of(lane)];
    throw;
  }
  return true;
}

void Board::lane_began(int wake_fd) {
  const std::lock_guard lock(mutex_);
  wake_fds_.push_back(wake_fd);
}

void Board::lane_ended(int wake_fd) {
  waiting_.remove(wake_fd);
  const std::lock_guard lock(mutex_);
  std::erase(wake_fds_, wake_fd);
}

void Board::wake_lanes() {
  for (const int fd : wake_fds_) ring(fd);
}

uint32_t Board::horizon() const {
  if (preparation_.options.collect || !stream_governor_) return UINT32_MAX;
  // Streams spread over what the budget lets them read ahead, not over the whole checkpoint.
  const std::lock_guard lock(mutex_);
  if (cursor_ >= preparation_.plan.targets.size()) return UINT32_MAX;
  const Target& head = preparation_.plan.targets[cursor_];
  const uint64_t ahead = preparation_.budget / preparation_.options.limits.range_size;
  return static_cast<uint32_t>(std::min<uint64_t>(
      UINT32_MAX, std::max(head.first_range, head.last_range) + std::max<uint64_t>(ahead / 2, 1)));
}

void Board::place_range(uint32_t index_of_range, bool cached, std::vector<uint32_t>& whole) {
  const Plan& plan = preparation_.plan;
  const Range& range = plan.ranges[index_of_range];
  arrivals_[range.blob].fetch_add(1, std::memory_order_relaxed);
  counts_.bytes_placed += range.size;
  for (uint32_t p = 0; p < range.piece_count; ++p) {
    const Piece& piece = plan.pieces[range.first_piece + p];
    const uint64_t bytes = piece.rows * piece.row_size;
    if (decoding_ && decoding_->has(piece.target)) {
      std::byte* const data = sink_->address(piece.target);
      if (data == nullptr) {
        return fail(Error(ErrorCode::usage, "bytes that the host cannot read are not decoded"));
      }
      for (uint32_t row = 0; row < piece.rows; ++row) {
        decoding_->arrived(piece.target, data, piece.target_offset + row * piece.target_pitch,
                           piece.row_size, cached);
      }
    } else if (remaining_[piece.target].fetch_sub(bytes, std::memory_order_acq_rel) == bytes) {
      whole.push_back(piece.target);
    }
  }
  const std::lock_guard lock(mutex_);
  ledger_.record(index().blobs[range.blob].name, {range.offset, range.size});
}

bool Board::take_placed(bool cached) {
  std::vector<uint32_t> placed;
  sink_->poll(placed);
  if (placed.empty()) return false;
  std::vector<uint32_t> whole;
  for (const uint32_t range : placed) place_range(range, cached, whole);
  finish_targets(whole);
  return true;
}

void Board::collect_placed(bool cached) {
  if (!take_placed(cached)) return;
  report_progress();
  waiting_.room();
}

void Board::finish_targets(const std::vector<uint32_t>& whole) {
  if (whole.empty() && !preparation_.plan.targets.empty()) return;
  const std::lock_guard lock(mutex_);
  for (const uint32_t target : whole) {
    whole_[target] = 1;
    ++whole_count_;
    if (preparation_.options.order == Order::ready) ready_.push_back(target);
  }
  const double now = seconds_since_start();
  if (times_.first == 0) times_.first = now;
  if (whole_count_ == whole_.size() && !error_) {
    times_.whole = now;
    stopped_.store(true, std::memory_order_release);
    wake_lanes();
  }
  changed_.notify_all();
}

void Board::report_progress() {
  const auto& progress = preparation_.options.progress;
  if (!progress) return;
  const double seconds = seconds_since_start();
  const auto now = static_cast<int64_t>(seconds * 1e9);
  int64_t next = counts_.next_report_ns.load();
  if (now < next || !counts_.next_report_ns.compare_exchange_strong(next, now + kReportEveryNs))
    return;
  progress({counts_.bytes_placed.load(), preparation_.plan.bytes_read, seconds});
}

void Board::stop(std::optional<Error> error) {
  const std::lock_guard lock(mutex_);
  if (!error_ && error && whole_count_ < whole_.size()) error_ = std::move(error);
  if (lanes_.stopped == Clock::time_point{}) lanes_.stopped = Clock::now();
  stopped_.store(true, std::memory_order_release);
  wake_lanes();
  changed_.notify_all();
}

void Board::fail(const Error& error) { stop(error); }

void Board::cancel() { stop(Error(ErrorCode::cancelled, "the load was cancelled")); }

// From here on no thread of the sink's asks it what is placed, so that it may end.
void Board::end_collecting() {
  stopped_.store(true, std::memory_order_release);
  const std::lock_guard lock(collecting_);
}

void Board::shut_down() {
  cancel();
  std::unique_lock lock(mutex_);
  const Deadline deadline = lanes_.stopped + kShutDown;
  if (!changed_.wait_until(lock, deadline, [this] { return lanes_.alive == 0; })) return;
  lock.unlock();
  // Staging is given back now, and not when the last lane's thread has left.
  decoding_.reset();
  end_collecting();
  if (sink_) last_sink_stats_ = sink_->stats();
  sink_.reset();
  preparation_.options.allocator = {};
  preparation_.options.sink = {};
}

void Board::add(const TraceEvent& event) {
  const std::lock_guard lock(mutex_);
  trace_.push_back(event);
}

void Board::count_budget_wait(double seconds) {
  const std::lock_guard lock(mutex_);
  times_.budget_wait += seconds;
}

void Board::streamed(uint64_t delivered_bytes) {
  if (!stream_governor_) return;
  uint32_t target = 0;
  {
    const std::lock_guard lock(mutex_);
    stream_governor_->delivered(delivered_bytes, Clock::now());
    target = stream_governor_->target();
    if (target > counts_.streams.exchange(target)) wake_lanes();
  }
  while (!stopped() && start_lane(preparation_.choice.lanes.front(), target)) continue;
}

// Others began to load the same blobs while this load bypasses the page cache: from now on the
// rest is read through it, so that all share one pass over the disk.
void Board::look_around() {
  if (!preparation_.registration || direct_retired() || stopped() || sources_.count() > 1) return;
  const auto& lanes = preparation_.choice.lanes;
  const auto direct =
      std::find_if(lanes.begin(), lanes.end(), [](const LaneChoice& lane) { return lane.direct; });
  const bool may_switch =
      direct != lanes.end() && preparation_.options.choice.backend.empty() &&
      preparation_.options.choice.page_cache != PageCache::drop &&
      preparation_.facts.wanted_bytes * 2 < preparation_.facts.machine.memory_available;
  if (!may_switch || preparation_.registration->neighbours().loading == 0) return;
  if (direct_retired_.exchange(true)) return;
  start_lane(fallback_lane(direct->coverage, preparation_.facts));
}

void Board::drop_pages(const Grant& grant, const LaneChoice& lane) {
  if (dropping_) dropping_->came(lane.source, grant, lane.direct);
}

double Board::seconds_since_start() const { return seconds_between(start_, Clock::now()); }

LoadStats Board::stats() const {
  LoadStats stats;
  stats.choice = preparation_.choice.name;
  stats.why = preparation_.choice.why;
  stats.sources = sources_.stats();
  for (const SourceStats& source : stats.sources) {
    stats.bytes_read += source.bytes;
    stats.reads += source.reads;
    stats.retries += source.retries;
    stats.hedges += source.hedges;
  }
  const SinkStats sink = sink_ ? sink_->stats() : last_sink_stats_;
  stats.bytes_copied = sink.bytes_copied;
  stats.peak_staging = sink.peak_staging;
  stats.peak_device_staging = sink.peak_device_staging;
  stats.budget = preparation_.budget;
  stats.depth = counts_.depth;
  stats.bytes_mapped = mapped_bytes_;
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < whole_.size(); ++i) {
    if (whole_[i] != 0) stats.bytes += preparation_.plan.targets[i].size;
  }
  stats.tensors = whole_count_;
  stats.fallbacks = fallbacks_;
  if (!sink.refusal.empty()) stats.fallbacks.push_back(sink.refusal);
  stats.seconds = times_.whole > 0 ? times_.whole : seconds_since_start();
  stats.seconds_to_first = times_.first;
  stats.consumer_wait = times_.consumer_wait;
  stats.budget_wait = times_.budget_wait;
  stats.lanes = lanes_.started;
  if (stopped() && lanes_.alive > 0)
    stats.orphaned = static_cast<uint64_t>(counts_.in_flight.load());
  return stats;
}

bool Board::taught(Profile& learnt) const {
  const Facts& facts = preparation_.facts;
  const LoadStats seen = stats();
  const uint64_t not_cold = facts.warm_bytes + facts.mixed_bytes + facts.speckled_bytes;
  const bool cold = not_cold * 10 < facts.wanted_bytes;
  const bool warm = !facts.target.name.empty() && facts.warm_bytes == facts.wanted_bytes;
  const bool unhindered = preparation_.options.collect || seen.consumer_wait * 2 > seen.seconds;
  // GPUDirect Storage is not tried by itself: who asks for it teaches its rate, if the driver's
  // start is in it.
  const Choice& choice = preparation_.choice;
  const bool gpudirect = choice.to_device;
  const bool usual = gpudirect ? facts.gpudirect_start && choice.lanes.front().direct
                               : preparation_.options.choice.backend.empty();
  const bool alone = facts.others_loading == 0 && usual;
  if (seen.bytes != preparation_.plan.bytes_delivered || seen.bytes < kLeastTeaching ||
      !(cold || warm) || !unhindered || !alone || !seen.fallbacks.empty() ||
      preparation_.options.engines) {
    return false;
  }
  PathRate rate;
  const double start = gpudirect ? facts.gpudirect_start.value_or(0) : 0;
  rate.bytes_per_second = static_cast<double>(seen.bytes) / (seen.seconds + start);
  rate.depth = seen.depth;
  rate.streams = counts_.streams > 0 ? counts_.streams.load() : seen.lanes;
  rate.loads = 1;
  const char* state = warm ? Profile::kWarm : Profile::kCold;
  if (!facts.target.name.empty()) learnt.learn(device_path(facts), choice.name, rate, state);
  if (cold && !gpudirect) learnt.learn(facts.filesystem.id, choice.name, rate, state);
  return true;
}

std::vector<TraceEvent> Board::trace() const {
  const std::lock_guard lock(mutex_);
  return trace_;
}

std::map<std::string, std::string> Board::digests() const {
  const std::lock_guard lock(mutex_);
  return digests_;
}

Ledger Board::ledger() const {
  const std::lock_guard lock(mutex_);
  return ledger_;
}

}  // namespace inrush
