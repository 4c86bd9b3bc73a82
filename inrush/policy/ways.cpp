#include "inrush/policy/ways.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "inrush/base/align.h"
#include "inrush/core/error.h"

namespace inrush {

namespace {

constexpr Way kWays[] = {
    {"URING", "uring", "uring", true},
    {"AIO", "aio", "aio", true},
    {"PREAD", "pread", "pread", true},
    {"URING_BUFFERED", "uring_buffered", "uring", false},
    {"AIO_BUFFERED", "aio_buffered", "aio", false},
    {"PREAD_BUFFERED", "pread_buffered", "pread", false},
    {"MMAP", "mmap", "mmap", false},
    {"CUFILE", "cufile", "cufile", true},
};

// A policy stands for several candidates.
struct Policy {
  const char* name;
  std::vector<const char*> backends;
};

std::vector<Policy> policies() {
  return {{"BUFFERED", {"URING_BUFFERED", "AIO_BUFFERED", "MMAP"}}};
}

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& letter : result) {
    letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  }
  return result;
}

// Threads that wait for a disk, whatever the number of CPUs: 16 direct reads of 1 MiB saturate
// what was measured, and buffered ones need as many to read around holes.
constexpr uint32_t kWaitingThreads = 16;
// Populating threads: two reach the disk's rate, a disk of high latency may want more.
constexpr uint32_t kPopulatingThreads = 4;

}  // namespace

std::span<const Way> way_table() { return kWays; }

const Way* find_way(std::string_view backend) {
  const std::string name = upper(backend);
  const auto* found = std::find_if(std::begin(kWays), std::end(kWays),
                                   [&](const Way& way) { return name == way.backend; });
  return found == std::end(kWays) ? nullptr : found;
}

std::string rejection(const Way& way, const Facts& facts, const ChoiceRequest& request) {
  const auto engine = std::find_if(facts.engines.begin(), facts.engines.end(),
                                   [&](const EngineFact& fact) { return fact.name == way.engine; });
  if (engine == facts.engines.end()) {
    return std::string_view(way.name) == "cufile"
               ? "it reads into device memory, and this build has no GPUDirect Storage"
               : "this build has no such engine";
  }
  if (!engine->reason.empty()) return engine->reason;
  const std::string& type = facts.filesystem.type;
  if (way.direct && facts.filesystem.memory) {
    return fmt::format("{} is memory: there is no device to read directly", type);
  }
  if (way.direct && !facts.filesystem.direct) return fmt::format("{} has no direct I/O here", type);
  if (way.engine != std::string_view("mmap")) return {};
  if (request.mapping == MappingRule::never) return "mapping=never was asked for";
  if (request.page_cache == PageCache::drop) {
    return "page_cache=drop was asked for, and mapped pages stay";
  }
  return {};
}

std::vector<const Way*> candidates(const std::vector<std::string>& backend) {
  std::vector<const Way*> ways;
  for (const std::string& asked : backend) {
    const std::string name = upper(asked);
    if (const Way* way = find_way(name)) {
      ways.push_back(way);
      continue;
    }
    const auto known = policies();
    const auto policy = std::find_if(known.begin(), known.end(),
                                     [&](const Policy& one) { return name == one.name; });
    if (policy == known.end()) {
      std::string names;
      for (const Way& way : kWays) names += fmt::format("{}, ", way.backend);
      for (const Policy& one : known) names += fmt::format("{}, ", one.name);
      throw Error(ErrorCode::usage,
                  fmt::format("backend={} is not one of {}automatic", asked, names));
    }
    for (const char* one : policy->backends) ways.push_back(find_way(one));
  }
  return ways;
}

LaneChoice lane_of(const Way& way, Coverage coverage, const Facts& facts,
                   const ChoiceRequest& request) {
  const uint32_t cpus = std::max(facts.machine.cpus, 1U);
  LaneChoice lane;
  lane.engine = way.engine;
  lane.direct = way.direct;
  lane.coverage = coverage;
  lane.block_size = kMiB;
  const bool all_warm = facts.warm_bytes == facts.wanted_bytes || facts.filesystem.memory;
  if (lane.engine == "mmap") {
    lane.block_size = 4 * kMiB;
    lane.depth = std::clamp(cpus, 2U, kPopulatingThreads);
    lane.most_depth = 2 * kPopulatingThreads;
  } else if (lane.engine != "pread") {
    lane.depth = 32;
    lane.most_depth = 64;
  } else if (coverage == Coverage::resident || (!way.direct && all_warm)) {
    lane.depth = lane.most_depth = cpus;  // copying: a thread for each CPU is all there is
  } else {
    lane.depth = kWaitingThreads;
    lane.most_depth = std::max(kWaitingThreads, std::min(2 * cpus, 64U));
  }
  // Populated pages are the page cache's; everything else is staged under the budget.
  if (lane.engine != "mmap") {
    const uint64_t most = std::max<uint64_t>(request.budget / 2 / lane.block_size, 1);
    lane.most_depth = static_cast<uint32_t>(std::min<uint64_t>(lane.most_depth, most));
    lane.depth = std::min(lane.depth, lane.most_depth);
  }
  return lane;
}

std::string bytes_text(uint64_t bytes) {
  const auto number = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", number / 1e9);
  if (bytes >= 1'000'000) return fmt::format("{:.0f} MB", number / 1e6);
  if (bytes >= 1'000) return fmt::format("{:.0f} kB", number / 1e3);
  return fmt::format("{} bytes", bytes);
}

}  // namespace inrush
