#include "inrush/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "inrush/base/cgroup.h"
#include "inrush/base/environment.h"
#include "inrush/base/json.h"
#include "inrush/core/plan.h"
#include "inrush/core/store.h"
#include "inrush/policy/advice.h"
#include "inrush/policy/choose.h"
#include "inrush/policy/facts.h"
#include "inrush/policy/fallbacks.h"
#include "inrush/policy/limit.h"
#include "inrush/policy/probes.h"
#include "inrush/policy/profile.h"
#include "inrush/policy/registry.h"
#include "inrush/stores/stores.h"

namespace inrush {

namespace {

constexpr int kSchema = 1;
constexpr double kSecondsEach = 1;
// Of a folder with more files the largest ones stand for the rest.
constexpr size_t kMostFiles = 64;

std::vector<Blob> open_files(const std::string& path) {
  Place place = find_place(path);
  std::vector<std::string> names = place.store->list();
  if (!place.entry.empty()) {
    std::erase_if(names, [&](const std::string& name) { return name != place.entry; });
  }
  std::vector<Blob> blobs;
  std::optional<Error> refused;
  for (const std::string& name : names) {
    try {
      blobs.push_back(place.store->open(name));
    } catch (const Error& error) {
      if (!refused) refused = error;  // a socket, say; it matters only where nothing else is there
    }
  }
  if (blobs.empty() && refused) throw Error(*refused);
  std::erase_if(blobs, [](const Blob& blob) { return blob.size == 0; });
  std::stable_sort(blobs.begin(), blobs.end(),
                   [](const Blob& a, const Blob& b) { return a.size > b.size; });
  if (blobs.size() > kMostFiles) blobs.resize(kMostFiles);
  return blobs;
}

// Every byte of every file is wanted.
Plan whole_files(const std::vector<Blob>& blobs) {
  Plan plan;
  for (uint32_t i = 0; i < blobs.size(); ++i) {
    Range range;
    range.blob = i;
    range.size = blobs[i].size;
    plan.ranges.push_back(range);
    plan.bytes_read += range.size;
  }
  return plan;
}

std::string probes_json(const Blob& blob, const FilesystemFact& filesystem) {
  std::vector<std::string> probes;
  for (const ProbeRow& row : probe_table()) {
    std::string refusal;
    const bool works = row.make(blob, filesystem, refusal) != nullptr;
    probes.push_back(fmt::format(R"({{"name":{},"reason":{}}})", json_string(row.name),
                                 json_string(works ? "" : refusal)));
  }
  return fmt::format("[{}]", fmt::join(probes, ","));
}

std::string fallbacks_json(const Facts& facts, const Blob* blob) {
  std::vector<std::string> items;
  for (const Fallback& one : list_fallbacks(facts, blob)) {
    items.push_back(fmt::format(R"({{"what":{},"why":{},"instead":{}}})", json_string(one.what),
                                json_string(one.why), json_string(one.instead)));
  }
  return fmt::format("[{}]", fmt::join(items, ","));
}

std::string advice_json(const std::vector<Advice>& advice) {
  std::vector<std::string> items;
  for (const Advice& one : advice) {
    items.push_back(
        fmt::format(R"({{"what":{},"why":{}}})", json_string(one.what), json_string(one.why)));
  }
  return fmt::format("[{}]", fmt::join(items, ","));
}

// What depends on the place: empty without one.
std::string place_json(const std::vector<Blob>& blobs, const Facts& facts, const Profile& profile) {
  if (blobs.empty()) return "";
  return fmt::format(R"("facts":{},"probes":{},"choice":{},"limit":{{"cold":{},"warm":{}}},)",
                     to_json(facts), probes_json(blobs.front(), facts.filesystem),
                     to_json(choose(facts, profile, {})),
                     to_json(measure_limit(blobs, LimitKind::cold, kSecondsEach)),
                     to_json(measure_limit(blobs, LimitKind::warm, kSecondsEach)));
}

}  // namespace

std::string doctor_json(const std::string& path) {
  std::vector<Blob> blobs;
  if (!path.empty()) blobs = open_files(path);
  Facts facts = gather_facts(blobs, whole_files(blobs));
  const Surroundings surroundings = ask_surroundings();
  const Profile profile = load_profile();
  if (!blobs.empty()) {
    const Registration registration(blobs);
    const Neighbours neighbours = registration.neighbours();
    facts.others_loading = neighbours.loading;
    facts.loaded_recently = neighbours.loaded_recently;
  }
  return fmt::format(R"({{"schema_version":{},"path":{},"machine":{},"cgroup":{},"engines":{},{})"
                     R"("profile":{{"path":{},"rates":{}}},"registry":{{"folder":{}}},)"
                     R"("fallbacks":{},"advice":{}}})",
                     kSchema, json_string(path), to_json(facts.machine),
                     json_string(ask_grants().group), to_json(facts.engines),
                     place_json(blobs, facts, profile),
                     json_string(profile_path(read_environment())), profile.rates.size(),
                     json_string(surroundings.registry_folder),
                     fallbacks_json(facts, blobs.empty() ? nullptr : &blobs.front()),
                     advice_json(advise(facts, surroundings)));
}

}  // namespace inrush
