#include "inrush/policy/backends.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cctype>

#include "inrush/base/align.h"
#include "inrush/base/text.h"

namespace inrush {
namespace {

constexpr BackendRow kBackends[] = {
    {"URING", "uring", true},
    {"AIO", "aio", true},
    {"PREAD", "pread", true},
    {"URING_BUFFERED", "uring", false},
    {"AIO_BUFFERED", "aio", false},
    {"PREAD_BUFFERED", "pread", false},
    {"MMAP", "mmap", false},
    {"CUFILE", "cufile", true},
    {"CUFILE_COMPATIBLE", "cufile", false},
};

constexpr const char* kBufferedPolicy = "BUFFERED";
constexpr std::array kBufferedMembers{"URING_BUFFERED", "AIO_BUFFERED", "MMAP"};

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::toupper(letter)); });
  return text;
}

const BackendRow* find_backend(std::string_view name) {
  for (const BackendRow& row : kBackends) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

// Direct reads only wait: 16 of 1 MiB reach what io_uring reaches. Cold bytes through the page
// cache get 16 as well, because each waits for its own read-ahead. Measured with 768 MiB, half of
// it resident in runs of 64 KiB to 1 MiB, 2 CPUs: 16 buffered threads take half the time of reading
// all of it direct.
constexpr uint32_t kWaitingThreads = 16;

// Copying out of the page cache is the processors' work: a lane for each, which copies on its own
// thread. Threads beside the lanes', of which one is to spare between two blocks, took 0.278 s for
// 1 GB where this takes 0.254, and decoders find less of it in the caches. Blocks hold whole huge
// pages, for two threads that fault in one huge page wait for each other. Measured with 2 GiB into
// fresh memory, 2 CPUs: 0.54 s with blocks of 1 MiB, 0.42 s with 2 to 8 MiB.
constexpr uint64_t kCopyBlock = 4 * kMiB;

bool only_copies(Coverage coverage, const Facts& facts) {
  return coverage == Coverage::resident || facts.filesystem.memory ||
         facts.warm_bytes == facts.wanted_bytes;
}

void settle_pread(LaneChoice& lane, const Facts& facts, const ChoiceRequest& request) {
  const uint32_t cpus = std::clamp(facts.machine.cpus, 1U, 32U);
  if (!lane.direct && only_copies(lane.coverage, facts)) {
    const uint64_t share = std::min(request.budget / 8, facts.wanted_bytes / (4 * cpus));
    lane.block_size = std::clamp(share, kMiB, kCopyBlock);
    lane.on_lane = true;
    lane.count = lane.most = cpus;
    lane.depth = lane.most_depth = 1;
  } else {
    lane.depth = lane.most_depth = std::max(kWaitingThreads, cpus);
  }
}

}  // namespace

// Streams of a far place to begin with. Object stores give a client 50 to 200 MB/s a stream; a few
// too many cost little, while too few cost two more doublings.
constexpr uint32_t kFirstStreams = 8;
constexpr uint64_t kMostStreams = 32;

std::span<const BackendRow> backend_table() { return kBackends; }

std::vector<const BackendRow*> backends_named(const std::vector<std::string>& names) {
  std::vector<const BackendRow*> rows;
  for (const std::string& name : names) {
    const std::string wanted = upper(name);
    if (wanted == kBufferedPolicy) {
      for (const char* member : kBufferedMembers) rows.push_back(find_backend(member));
      continue;
    }
    const BackendRow* row = find_backend(wanted);
    if (row == nullptr) {
      std::vector<std::string> all;
      for (const BackendRow& known : kBackends) all.emplace_back(known.name);
      all.emplace_back(kBufferedPolicy);
      throw Error(ErrorCode::usage,
                  fmt::format("backend {} is unknown; there are {}", name, fmt::join(all, ", ")));
    }
    rows.push_back(row);
  }
  return rows;
}

const BackendRow& backend_named(std::string_view name) {
  const BackendRow* row = find_backend(name);
  assert(row != nullptr);
  return *row;
}

std::string rejection(const BackendRow& backend, const Facts& facts, const ChoiceRequest& request) {
  const bool to_device = backend.engine == std::string_view("cufile");
  const bool direct = backend.direct || to_device;
  if (to_device) {
    const auto known =
        std::find_if(facts.backends.begin(), facts.backends.end(),
                     [&](const EngineFact& fact) { return fact.name == backend.name; });
    if (known == facts.backends.end()) {
      return "it reads into device memory, and the tensors do not all go to one CUDA device";
    }
    if (!known->reason.empty()) return known->reason;
  }
  const auto engine =
      std::find_if(facts.engines.begin(), facts.engines.end(),
                   [&](const EngineFact& fact) { return fact.name == backend.engine; });
  if (engine == facts.engines.end()) return "it is not in this build";
  if (!engine->reason.empty()) return engine->reason;
  const std::string& type = facts.filesystem.type;
  if (direct && facts.filesystem.memory) {
    return fmt::format("{} is memory: there is no device to read directly", type);
  }
  if (direct && !facts.filesystem.direct) {
    return fmt::format("{} has no direct I/O here", type);
  }
  if (backend.engine != std::string_view("mmap")) return {};
  if (request.mapping == MappingRule::never) return "mapping=never was asked for";
  if (request.page_cache == PageCache::drop) {
    return "page_cache=drop was asked for, and mapped pages stay";
  }
  return {};
}

// Threads that wait, with as many reads as the slots on the device hold.
void settle_cufile(LaneChoice& lane, const ChoiceRequest& request) {
  lane.picks_files = true;
  lane.coverage = Coverage::cold;  // resident ones are what it refused
  lane.block_size = std::clamp(align_down(request.device_budget / 16, kMiB), kMiB, 4 * kMiB);
  const uint64_t slots = std::max<uint64_t>(request.device_budget / (2 * lane.block_size), 1);
  lane.most_depth = static_cast<uint32_t>(std::min<uint64_t>(slots, kWaitingThreads));
  lane.depth = std::min(lane.most_depth, 8U);
}

LaneChoice lane_of(const BackendRow& backend, Coverage coverage, const Facts& facts,
                   const ChoiceRequest& request) {
  LaneChoice lane;
  lane.engine = backend.engine;
  lane.direct = backend.direct;
  lane.coverage = coverage;
  lane.block_size = kMiB;
  if (lane.engine == "pread") {
    settle_pread(lane, facts, request);
  } else if (lane.engine == "mmap") {
    // Populating works in huge pages, and three threads reach a disk's rate with them. Where memory
    // is too fragmented for huge pages its requests are smaller, and more of them are wanted:
    // 3 GiB cold, 2 CPUs, fragmented: 2.22 s with 3 threads of 4 MiB, 2.07 s with 8 of 2 MiB.
    lane.block_size = 2 * kMiB;
    lane.depth = lane.most_depth = std::clamp(facts.machine.cpus, 8U, 16U);
    // Holes are filled by small requests, best waited for in the files' order where processors are
    // few: 512 MiB in runs of 64 KiB and of 1 MiB took 1.11 and 1.12 of safetensors' time with 8
    // threads, 1.08 and 1.08 with one for which the kernel reads ahead as for theirs.
    const bool holes = facts.mixed_bytes * 2 > facts.wanted_bytes;
    if (holes) lane.depth = lane.most_depth = std::clamp(facts.machine.cpus / 2, 1U, lane.depth);
  } else if (lane.engine == "cufile") {
    settle_cufile(lane, request);
    return lane;
  } else {
    // A submitting thread also zeroes the fresh pages it reads into: at 5 GB/s, or at 1.5 where a
    // hypervisor has to find them first. 3 GiB cold, 2 CPUs: 2.64 s with one thread, 2.27 with two.
    lane.count = lane.most =
        std::clamp(facts.machine.cpus / 4, std::min(facts.machine.cpus, 2U), 4U);
    lane.depth = 32 / lane.count;
    lane.most_depth = 64 / lane.count;
  }
  // Populated pages are the page cache's; all others are staged under the budget.
  if (lane.engine == "mmap") return lane;
  const auto reads = static_cast<uint32_t>(
      std::clamp<uint64_t>(request.budget / 2 / lane.block_size, 1, UINT32_MAX));
  lane.count = lane.most = std::min(lane.count, reads);
  lane.most_depth = std::min(lane.most_depth, reads / lane.count);
  lane.depth = std::min(lane.depth, lane.most_depth);
  return lane;
}

LaneChoice stream_lane(const Facts& facts, const ChoiceRequest& request, const PathRate* learnt) {
  LaneChoice lane;
  lane.engine = "pread";
  lane.sequential = true;
  lane.depth = lane.most_depth = 1;
  // A stream costs a round trip to open and one to begin, whatever it then brings.
  const uint64_t worth = facts.wanted_bytes / (2 * kMiB) + 1;
  const uint32_t first = learnt != nullptr && learnt->streams > 0 ? learnt->streams : kFirstStreams;
  const uint64_t streams = std::max<uint64_t>(
      std::min({uint64_t{first}, kMostStreams, worth, request.budget / 2 / kMiB}), 1);
  // A stream's whole share at once where that is little: else those that are done early take the
  // others' next blocks, and all of them begin anew.
  const uint64_t share = align_up(facts.wanted_bytes / streams, kMiB);
  lane.block_size = std::clamp(std::min(share, request.budget / 2 / streams), kMiB, 4 * kMiB);
  const uint64_t affordable = std::max<uint64_t>(request.budget / 2 / lane.block_size, 1);
  lane.most = static_cast<uint32_t>(std::min({kMostStreams, worth, affordable}));
  lane.count = std::clamp(static_cast<uint32_t>(streams), 1U, lane.most);
  return lane;
}

// A request costs a round trip and some 50 us of either side's processors, so reads are large; but
// a load has enough of them to keep all connections busy to its end.
constexpr uint64_t kLargestRequest = 8 * kMiB;
constexpr uint32_t kFirstRequests = 8;
constexpr uint32_t kMostRequests = 64;

LaneChoice remote_lane(const Facts& facts, const ChoiceRequest& request, const PathRate* learnt) {
  LaneChoice lane;
  lane.engine = facts.filesystem.engine;
  const uint64_t share = align_up(facts.wanted_bytes / (2 * kFirstRequests) + 1, kMiB);
  const uint64_t affordable = std::max(align_down(request.budget / 16, kMiB), kMiB);
  lane.block_size = std::min({share, affordable, kLargestRequest});
  // One thread drives many connections, and copies out of the socket at the rate of one processor.
  lane.count = lane.most = std::clamp(facts.machine.cpus, 1U, 2U);
  const auto reads = static_cast<uint32_t>(
      std::clamp<uint64_t>(request.budget / 2 / lane.block_size, lane.count, kMostRequests));
  const bool known = learnt != nullptr && learnt->depth > 0;
  lane.most_depth = reads / lane.count;
  lane.depth = std::clamp(known ? learnt->depth : kFirstRequests / lane.count, 1U, lane.most_depth);
  return lane;
}

std::string short_name(const BackendRow& backend) { return lower(backend.name); }

}  // namespace inrush
