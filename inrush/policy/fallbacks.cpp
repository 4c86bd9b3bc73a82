#include "inrush/policy/fallbacks.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "inrush/base/madvise.h"
#include "inrush/policy/probes.h"
#include "inrush/policy/profile.h"
#include "inrush/policy/registry.h"

namespace inrush {
namespace {

std::string reason(std::string_view call, int error_number) {
  char text[128];
  return fmt::format("{}: {}", call, strerror_r(error_number, text, sizeof text));
}

const EngineFact* find(const Facts& facts, std::string_view name) {
  const auto found = std::find_if(facts.engines.begin(), facts.engines.end(),
                                  [&](const EngineFact& engine) { return engine.name == name; });
  return found == facts.engines.end() ? nullptr : &*found;
}

void add_engines(const Facts& facts, std::vector<Fallback>& out) {
  const EngineFact* const uring = find(facts, "uring");
  const EngineFact* const aio = find(facts, "aio");
  const bool has_aio = aio != nullptr && aio->reason.empty();
  if (uring != nullptr && !uring->reason.empty()) {
    out.push_back(
        {"io_uring", uring->reason, has_aio ? "Linux AIO" : "positional reads on threads"});
  }
  if (aio != nullptr && !aio->reason.empty()) {
    const bool has_uring = uring != nullptr && uring->reason.empty();
    out.push_back(
        {"Linux AIO", aio->reason, has_uring ? "io_uring" : "positional reads on threads"});
  }
}

// Of no pages at all: the kernel says only whether it knows the advice.
void add_populate(std::vector<Fallback>& out) {
  if (::madvise(nullptr, 0, kPopulateRead) == 0) return;
  out.push_back({"populated mappings", reason("MADV_POPULATE_READ", errno),
                 "pages are brought in by reading, then mapped"});
}

void add_user(std::vector<Fallback>& out) {
  const ProfileProblem problem = profile_problem();
  if (!problem.why.empty()) out.push_back({"the profile", problem.why, problem.instead});
  if (registry_folder().empty()) {
    out.push_back({"the registry of loads", "no folder in shared memory can be written",
                   "processes that load the same files do not share a pass"});
  }
}

void add_place(const Facts& facts, const Blob& blob, std::vector<Fallback>& out) {
  if (blob.fd < 0) return;  // of a remote place nothing of a file's is missed
  const FilesystemFact& place = facts.filesystem;
  if (!place.memory && !place.direct) {
    out.push_back({"direct I/O", fmt::format("{} refuses it", place.type),
                   "reads go through the page cache"});
  }
  if (place.memory) return;
  std::vector<Fallback> refused;
  for (const ProbeRow& row : probe_table()) {
    std::string refusal;
    if (row.make(blob, place, refusal) == nullptr) {
      refused.push_back({fmt::format("residency by {}", row.name), refusal, ""});
      continue;
    }
    for (Fallback& one : refused) one.instead = row.name;
    break;
  }
  for (Fallback& one : refused) {
    if (one.instead.empty()) one.instead = "taken to be cold";
    out.push_back(std::move(one));
  }
}

}  // namespace

std::vector<Fallback> list_fallbacks(const Facts& facts, const Blob* blob) {
  std::vector<Fallback> out;
  add_engines(facts, out);
  add_populate(out);
  add_user(out);
  if (blob != nullptr) add_place(facts, *blob, out);
  return out;
}

}  // namespace inrush
