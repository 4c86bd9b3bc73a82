#include "inrush/load.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <string_view>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/core/quoted.h"
#include "inrush/core/select.h"
#include "inrush/load/board.h"
#include "inrush/policy/backends.h"
#include "inrush/shim/cufile.h"

namespace inrush {
namespace {

constexpr uint64_t kDefaultBudget = 256 * kMiB;
constexpr uint64_t kLeastAutomatic = 8 * kMiB;
constexpr uint64_t kDeviceBudget = 64 * kMiB;
constexpr uint64_t kMostSmall = 64;  // reads of one range that a lane of a mirror has in flight

// The default, less in a small cgroup.
uint64_t settle_budget(uint64_t asked, const Facts& facts) {
  if (asked != 0) return asked;
  const uint64_t eighth = facts.machine.memory_available / 8;
  return std::clamp(eighth, kLeastAutomatic, kDefaultBudget);
}

// Each place is read as it would be alone, but never mapped and with its share of the budget.
Choice choose_mirrored(const Checkpoint& checkpoint, const Plan& plan, const Facts& facts,
                       const LoadOptions& options) {
  const std::span<const Checkpoint> mirrors = checkpoint.mirrors();
  Choice whole;
  ChoiceRequest request = options.choice;
  request.mapping = MappingRule::never;
  request.budget = std::max(request.budget / (mirrors.size() + 1), options.limits.range_size);
  const Profile profile = options.engines ? Profile{} : load_profile();
  for (uint32_t source = 0; source <= mirrors.size(); ++source) {
    Facts here = source == 0 ? facts : gather_facts(mirrors[source - 1].index().blobs, plan);
    here.private_host_memory = false;
    here.target = {};
    const Choice choice = choose(here, profile, request);
    whole.name += (source == 0 ? "" : "+") + choice.name;
    whole.why += (source == 0 ? "several places on one queue: " : "; ") + choice.why;
    if (choice.lanes.empty()) continue;
    LaneChoice lane = choice.lanes.back();
    lane.source = source;
    lane.coverage = Coverage::all;
    if (lane.sequential) {
      lane.sequential = false;
      lane.depth = lane.count;
      lane.most_depth = lane.most;
      lane.count = lane.most = 1;
    }
    if (!here.filesystem.engine.empty()) {
      // A slot holds one range, however large the requests would be: more of them, then.
      const uint64_t slots = request.budget / 2 / options.limits.range_size / lane.count;
      lane.most_depth =
          std::max(lane.most_depth, static_cast<uint32_t>(std::min(slots, kMostSmall)));
    }
    whole.lanes.push_back(lane);
    if (source == 0) whole.rejected = choice.rejected;
  }
  return whole;
}

// Lanes of one load have one way to reach its bytes.
void check_one_way(std::span<const Blob> blobs) {
  for (const Blob& blob : blobs) {
    if (blob.engine == blobs.front().engine) continue;
    throw Error(ErrorCode::usage,
                fmt::format("load {} and {}: local files and remote ones, or ones of different "
                            "stores, are no one checkpoint",
                            blobs.front().name, blob.name));
  }
}

// A destination that nothing fills would be found out when its memory is used, and two consumers
// would both write to one.
void check_out(const Index& index, const Plan& plan, const std::map<std::string, Memory>& out) {
  if (out.empty()) return;
  std::set<std::string_view> filled;
  for (const Target& target : plan.targets) {
    const std::string& name = index.tensors[target.tensor].name;
    if (!out.contains(name) || filled.insert(name).second) continue;
    throw Error(ErrorCode::usage,
                fmt::format("out: several consumers want {}, whose memory is one", quoted(name)));
  }
  for (const auto& [name, memory] : out) {
    if (filled.contains(name)) continue;
    throw Error(ErrorCode::usage, fmt::format("out: no tensor {} is loaded", quoted(name)));
  }
}

// What the backends of GPUDirect Storage answer, where they are named or would be chosen: asking
// starts the library.
void ask_cufile(const LoadOptions& options, const Checkpoint& checkpoint, const Profile& profile,
                Facts& facts) {
  std::vector<std::string> named = options.choice.backend;
  if (would_take_gpudirect(facts, profile, options.choice)) named = {"CUFILE"};
  if (!options.direct_device.starts_with("cuda")) return;
  for (const auto& [name, memory] : options.out) {
    const bool there = memory.kind == MemoryKind::device &&
                       fmt::format("cuda:{}", memory.device) == options.direct_device;
    if (!there) return;
  }
  for (const BackendRow* row : backends_named(named)) {
    if (row->engine != std::string_view("cufile")) continue;
    EngineFact fact{row->name, ""};
    if (!checkpoint.mirrors().empty()) fact.reason = "several places are read at once";
    try {
      if (fact.reason.empty()) facts.gpudirect_start = CuFile(!row->direct).start_seconds();
    } catch (const Error& error) {
      fact.reason = error.message();
    }
    facts.backends.push_back(fact);
    if (fact.reason.empty()) return;  // the next one could not open it otherwise
  }
}

// A lane takes a few, and what is found out about the files one at a time: without them each would
// say in its own words why it cannot be had.
void check_descriptors(const Index& index) {
  constexpr size_t kNeeded = 6;
  constexpr size_t kManyFiles = 32;
  if (index.blobs.size() < kManyFiles || index.blobs.front().fd < 0) return;
  std::array<Fd, kNeeded> free;
  for (Fd& fd : free) {
    fd = Fd(::fcntl(index.blobs.front().fd, F_DUPFD_CLOEXEC, 0));
    if (fd || !is_out_of_descriptors(errno)) continue;
    throw no_descriptor(fmt::format("load {} files", index.blobs.size()), errno,
                        fmt::format(", and a load needs {} beside one for each file", kNeeded));
  }
}

Preparation prepare(const Checkpoint& checkpoint, LoadOptions options) {
  const Index& index = checkpoint.index();
  if (options.selections.empty()) options.selections = {{select(index, {})}};
  if (options.pool > 0 && (options.collect || options.allocator)) {
    throw Error(ErrorCode::usage, "a pool serves neither collect nor an allocator");
  }
  check_one_way(index.blobs);
  check_descriptors(index);
  Plan plan = make_plan(index, options.selections, options.limits);
  check_out(index, plan, options.out);
  // A decoder reads the bytes, and a mapped byte may vanish under it.
  if (options.decoder) options.choice.mapping = MappingRule::never;
  Facts facts = gather_facts(index.blobs, plan);
  facts.numa = options.numa;
  facts.target = options.target;
  if (!facts.numa.cpus.empty()) {
    const auto there = static_cast<uint32_t>(facts.numa.cpus.size());
    facts.machine.cpus = std::min(facts.machine.cpus, there);
  }
  facts.private_host_memory =
      !options.allocator && options.pool == 0 && options.out.empty() && !options.sink;
  auto registration = std::make_unique<Registration>(index.blobs);
  const Neighbours neighbours = registration->neighbours();
  facts.others_loading = neighbours.loading;
  facts.loaded_recently = neighbours.loaded_recently;
  const uint64_t budget = settle_budget(options.budget, facts);
  options.choice.budget = budget;
  if (options.device_budget == 0) options.device_budget = kDeviceBudget;
  options.choice.device_budget = options.device_budget;
  const Profile profile = options.engines ? Profile{} : load_profile();
  ask_cufile(options, checkpoint, profile, facts);
  Choice choice = checkpoint.mirrors().empty() ? choose(facts, profile, options.choice)
                                               : choose_mirrored(checkpoint, plan, facts, options);
  return {checkpoint, std::move(options),     std::move(plan), std::move(facts), std::move(choice),
          budget,     std::move(registration)};
}

}  // namespace

class Load::State {
 public:
  State(const Checkpoint& checkpoint, LoadOptions options)
      : board(std::make_shared<Board>(prepare(checkpoint, std::move(options)))) {
    try {
      board->begin();
    } catch (...) {
      board->shut_down();
      throw;
    }
  }
  ~State() {
    board->shut_down();
    Profile learnt;
    if (board->taught(learnt)) save_profile(learnt);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::shared_ptr<Board> board;
};

Load::Load(const Checkpoint& checkpoint, LoadOptions options)
    : state_(std::make_shared<State>(checkpoint, std::move(options))) {}

Load::~Load() = default;
Load::Load(Load&&) noexcept = default;
Load& Load::operator=(Load&&) noexcept = default;

std::optional<Tensor> Load::next() {
  bool timed_out = false;
  return state_->board->next(Deadline::max(), timed_out);
}

std::optional<Tensor> Load::next(Deadline deadline, bool& timed_out) {
  return state_->board->next(deadline, timed_out);
}

bool Load::wait(Deadline deadline) { return state_->board->wait(deadline); }

void Load::cancel() { state_->board->cancel(); }

LoadStats Load::stats() const { return state_->board->stats(); }
const Plan& Load::plan() const { return state_->board->preparation().plan; }
const Facts& Load::facts() const { return state_->board->preparation().facts; }
const Choice& Load::choice() const { return state_->board->preparation().choice; }
std::vector<TraceEvent> Load::trace() const { return state_->board->trace(); }
std::map<std::string, std::string> Load::digests() const { return state_->board->digests(); }
Ledger Load::ledger() const { return state_->board->ledger(); }

}  // namespace inrush
