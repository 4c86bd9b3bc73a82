#include "inrush/policy/facts.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <algorithm>
#include <map>

#include "inrush/base/cgroup.h"
#include "inrush/base/json.h"
#include "inrush/base/parallel.h"
#include "inrush/base/small_file.h"
#include "inrush/engines/engines.h"
#include "inrush/policy/filesystem.h"
#include "inrush/policy/residency.h"

namespace inrush {

namespace {

constexpr size_t kFarLookers = 16;

// "always [madvise] never" -> "madvise"
std::string bracketed(const std::string& text) {
  const size_t open = text.find('[');
  const size_t close = text.find(']', open);
  if (open == std::string::npos || close == std::string::npos) return {};
  return text.substr(open + 1, close - open - 1);
}

// Calls visit(window, bytes of the range in it) for each window that the range touches.
template <typename Visit>
void each_window(const Range& range, Visit visit) {
  const uint64_t end = range.offset + range.size;
  for (uint64_t at = range.offset; at < end;) {
    const uint64_t window = at / Residency::kWindow;
    const uint64_t next = std::min(end, (window + 1) * Residency::kWindow);
    visit(window, next - at);
    at = next;
  }
}

std::vector<std::vector<bool>> wanted_windows(std::span<const Blob> blobs, const Plan& plan) {
  std::vector<std::vector<bool>> wanted(blobs.size());
  for (size_t i = 0; i < blobs.size(); ++i) {
    wanted[i].assign((blobs[i].size + Residency::kWindow - 1) / Residency::kWindow, false);
  }
  for (const Range& range : plan.ranges) {
    if (range.blob >= wanted.size()) continue;
    auto& windows = wanted[range.blob];
    each_window(range, [&](uint64_t window, uint64_t /*bytes*/) {
      if (window < windows.size()) windows[window] = true;
    });
  }
  return wanted;
}

void count_bytes(const Plan& plan, Facts& facts) {
  uint64_t by_warmth[5] = {};
  for (const Range& range : plan.ranges) {
    facts.wanted_bytes += range.size;
    each_window(range, [&](uint64_t window, uint64_t bytes) {
      by_warmth[static_cast<size_t>(warmth_at(facts, range.blob, window))] += bytes;
    });
  }
  facts.warm_bytes = by_warmth[static_cast<size_t>(Warmth::warm)];
  facts.mixed_bytes = by_warmth[static_cast<size_t>(Warmth::mixed)];
  facts.speckled_bytes = by_warmth[static_cast<size_t>(Warmth::speckled)];
  facts.unknown_bytes = by_warmth[static_cast<size_t>(Warmth::unknown)];
}

}  // namespace

Warmth warmth_at(const Facts& facts, uint32_t blob, uint64_t window) {
  if (blob >= facts.residency.size()) return Warmth::unknown;
  const auto& windows = facts.residency[blob].windows;
  return window < windows.size() ? windows[window] : Warmth::unknown;
}

bool is_warm(const Blob& blob) {
  const std::vector<bool> all((blob.size + Residency::kWindow - 1) / Residency::kWindow, true);
  const Residency residency = probe_residency(blob, ask_filesystem(blob), all, ProbeTime{});
  return std::all_of(residency.windows.begin(), residency.windows.end(),
                     [](Warmth warmth) { return warmth == Warmth::warm; });
}

MachineFact ask_machine() {
  MachineFact machine;
  utsname name{};
  if (::uname(&name) == 0) machine.kernel = name.release;
  const Grants grants = ask_grants();
  machine.cpus = grants.cpus;
  machine.memory_available = grants.memory_available;
  machine.memory_limit = grants.memory_limit;
  machine.swap_free = grants.swap_free;
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0) machine.memlock_limit = limit.rlim_cur;
  machine.page_size = page_size();
  machine.huge_pages = bracketed(read_small_file("/sys/kernel/mm/transparent_hugepage/enabled"));
  return machine;
}

std::vector<EngineFact> ask_engines() {
  std::vector<EngineFact> engines;
  for (const EngineRow& row : engine_table()) engines.push_back({row.name, row.unusable()});
  return engines;
}

Facts gather_facts(std::span<const Blob> blobs, const Plan& plan) {
  Facts facts;
  facts.machine = ask_machine();
  if (!blobs.empty()) facts.filesystem = ask_filesystem(blobs[0]);
  facts.engines = ask_engines();
  const auto wanted = wanted_windows(blobs, plan);
  const ProbeTime time;
  facts.residency.resize(blobs.size());
  // On a far place each blob may take round trips.
  const size_t threads = facts.filesystem.sequential ? kFarLookers : 1;
  parallel_for(blobs.size(), threads, [&](size_t i) {
    ProbeTime left = time;
    // Of a thousand shards the first ones must do when looks are dear.
    if (i > 0 && Clock::now() >= time.looking) left.least_looks = 0;
    facts.residency[i] = probe_residency(blobs[i], facts.filesystem, wanted[i], left);
  });
  count_bytes(plan, facts);
  facts.blobs = static_cast<uint32_t>(blobs.size());
  facts.targets = static_cast<uint32_t>(plan.targets.size());
  for (const Target& target : plan.targets) {
    facts.largest_target = std::max(facts.largest_target, target.size);
  }
  return facts;
}

std::string device_path(const Facts& facts) {
  return fmt::format("{} to {}", facts.filesystem.id, facts.target.id);
}

std::string to_json(const MachineFact& machine) {
  return fmt::format(
      R"({{"kernel":{},"cpus":{},"memory_available":{},"memory_limit":{},"swap_free":{},)"
      R"("memlock_limit":{},"page_size":{},"huge_pages":{}}})",
      json_string(machine.kernel), machine.cpus, machine.memory_available, machine.memory_limit,
      machine.swap_free, machine.memlock_limit, machine.page_size, json_string(machine.huge_pages));
}

std::string to_json(const FilesystemFact& filesystem) {
  return fmt::format(
      R"({{"type":{},"id":{},"engine":{},"memory":{},"may_map":{},"sequential":{},"own_pages":{},)"
      R"("direct":{},"direct_memory_align":{},"direct_offset_align":{},"read_ahead_kib":{}}})",
      json_string(filesystem.type), json_string(filesystem.id), json_string(filesystem.engine),
      filesystem.memory, filesystem.may_map, filesystem.sequential, filesystem.own_pages,
      filesystem.direct, filesystem.direct_memory_align, filesystem.direct_offset_align,
      filesystem.read_ahead_kib);
}

std::string to_json(const std::vector<EngineFact>& engines) {
  std::string text;
  for (const EngineFact& engine : engines) {
    text += fmt::format(R"({}{{"name":{},"reason":{}}})", text.empty() ? "" : ",",
                        json_string(engine.name), json_string(engine.reason));
  }
  return "[" + text + "]";
}

std::string to_json(const TargetFact& target) {
  return fmt::format(R"({{"name":{},"id":{},"register_refusal":{}}})", json_string(target.name),
                     json_string(target.id), json_string(target.register_refusal));
}

std::string to_json(const Facts& facts) {
  std::map<std::string, uint32_t> methods;  // of how many blobs each probe told the residency
  for (const Residency& residency : facts.residency) ++methods[residency.method];
  std::string probes;
  for (const auto& [method, count] : methods) {
    probes += fmt::format("{}{}:{}", probes.empty() ? "" : ",", json_string(method), count);
  }
  return fmt::format(R"({{"machine":{},"filesystem":{},"engines":{},"residency_probes":{{{}}},)"
                     R"("wanted_bytes":{},"warm_bytes":{},"mixed_bytes":{},"speckled_bytes":{},)"
                     R"("unknown_bytes":{},"largest_target":{},"blobs":{},"targets":{},)"
                     R"("private_host_memory":{},"others_loading":{},"loaded_recently":{},)"
                     R"("numa":{},"target":{}}})",
                     to_json(facts.machine), to_json(facts.filesystem), to_json(facts.engines),
                     probes, facts.wanted_bytes, facts.warm_bytes, facts.mixed_bytes,
                     facts.speckled_bytes, facts.unknown_bytes, facts.largest_target, facts.blobs,
                     facts.targets, facts.private_host_memory, facts.others_loading,
                     facts.loaded_recently, to_json(facts.numa), to_json(facts.target));
}

}  // namespace inrush
