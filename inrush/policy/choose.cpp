#include "inrush/policy/choose.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>

#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/policy/backends.h"

namespace inrush {
namespace {

// A way that was seen to be this much faster here overturns what is believed without evidence.
constexpr double kOverturns = 1.10;

std::string gigabytes(uint64_t bytes) {
  return bytes < 100'000'000 ? fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6)
                             : fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

const BackendRow* first_usable(std::initializer_list<const char*> names, const Facts& facts,
                               std::vector<EngineFact>& rejected) {
  for (const char* name : names) {
    const BackendRow* row = backends_named({name}).front();
    std::string reason = rejection(*row, facts);
    if (reason.empty()) return row;
    rejected.push_back({row->name, std::move(reason)});
  }
  return nullptr;
}

struct Situation {
  const Facts& facts;
  const Profile& profile;
  const ChoiceRequest& request;

  [[nodiscard]] bool may_map() const {
    return request.mapping == MappingRule::automatic && facts.filesystem.may_map &&
           facts.private_host_memory;
  }
  [[nodiscard]] uint64_t cold_bytes() const {
    return facts.wanted_bytes - std::min(facts.warm_bytes, facts.wanted_bytes);
  }
  [[nodiscard]] bool ample_memory() const {
    return facts.wanted_bytes + cold_bytes() / 2 < facts.machine.memory_available;
  }
  [[nodiscard]] bool too_large() const {
    return facts.wanted_bytes > facts.machine.memory_available / 10 * 9;
  }
  [[nodiscard]] bool speckled() const { return facts.speckled_bytes * 2 > facts.wanted_bytes; }
  [[nodiscard]] bool shared() const {
    return request.page_cache == PageCache::keep ||
           (request.page_cache == PageCache::automatic && ample_memory() &&
            (facts.others_loading > 0 || facts.loaded_recently));
  }
  [[nodiscard]] bool seen_faster(const char* way, const char* than) const {
    const PathRate* one = profile.find(facts.filesystem.id, way);
    const PathRate* two = profile.find(facts.filesystem.id, than);
    return one != nullptr && two != nullptr &&
           one->bytes_per_second > two->bytes_per_second * kOverturns;
  }
};

std::string place_of(const Facts& facts) {
  return fmt::format("{} on {}", gigabytes(facts.wanted_bytes), facts.filesystem.type);
}

// Everything is the file's own pages; what is not resident is populated by a lane.
Choice map_all(const Situation& situation, const BackendRow& mmap) {
  const Facts& facts = situation.facts;
  Choice choice;
  choice.map_warm = choice.map_cold = true;
  choice.name = "mmap";
  if (situation.too_large() && situation.cold_bytes() > 0) {
    choice.why = fmt::format(
        "{} is more than the {} of memory granted here, so it is mapped and pages come as they "
        "are touched",
        place_of(facts), gigabytes(facts.machine.memory_available));
    return choice;
  }
  if (situation.cold_bytes() == 0) {
    choice.why = fmt::format("{} is in memory already, so its pages are mapped and nothing is read",
                             place_of(facts));
    return choice;
  }
  choice.lanes = {lane_of(mmap, Coverage::cold, facts, situation.request)};
  choice.why = fmt::format(
      "{}, {} of it cold, with {} of memory free: populating the page cache and mapping it copies "
      "nothing and leaves the next start warm",
      place_of(facts), gigabytes(situation.cold_bytes()),
      gigabytes(facts.machine.memory_available));
  return choice;
}

// Few long streams through the page cache, for places that are far or serve requests one by one.
Choice stream(const Situation& situation) {
  const Facts& facts = situation.facts;
  Choice choice;
  choice.name = "pread_buffered";
  choice.lanes = {stream_lane(facts, situation.profile.find(facts.filesystem.id, choice.name))};
  choice.why = fmt::format("{} wants few long reads, so up to {} streams read {} each in order",
                           facts.filesystem.type, choice.lanes.front().most, place_of(facts));
  return choice;
}

// Cold ranges bypass the page cache; resident ones are mapped or copied out of it.
Choice read_direct(const Situation& situation, const BackendRow& direct) {
  const Facts& facts = situation.facts;
  Choice choice;
  choice.map_warm = situation.may_map();
  choice.name = short_name(direct);
  choice.lanes = {lane_of(direct, Coverage::cold, facts, situation.request)};
  if (facts.warm_bytes > 0 && !choice.map_warm) {
    const BackendRow& copies = *backends_named({"PREAD_BUFFERED"}).front();
    choice.lanes.push_back(lane_of(copies, Coverage::resident, facts, situation.request));
    choice.name += "+pread_buffered";
  } else if (facts.warm_bytes > 0) {
    choice.name = "mmap+" + choice.name;
  }
  std::string reason = "its memory is to be private";
  if (situation.request.page_cache == PageCache::drop)
    reason = "the page cache is to stay as it is";
  else if (situation.speckled())
    reason = "the resident pages are too scattered to be read apart";
  else if (situation.may_map())
    reason = "that was faster here before";
  choice.why = fmt::format("{}, {} of it cold, is read around the page cache because {}",
                           place_of(facts), gigabytes(situation.cold_bytes()), reason);
  return choice;
}

Choice read_buffered(const Situation& situation) {
  const Facts& facts = situation.facts;
  const BackendRow& copies = *backends_named({"PREAD_BUFFERED"}).front();
  Choice choice;
  choice.name = short_name(copies);
  choice.lanes = {lane_of(copies, Coverage::all, facts, situation.request)};
  std::string reason = "nothing here can bypass it";
  if (situation.cold_bytes() == 0)
    reason = "it is in memory already";
  else if (facts.others_loading > 0) {
    reason = fmt::format("{} other process{} here load{} it too and the disk is read once",
                         facts.others_loading, facts.others_loading == 1 ? "" : "es",
                         facts.others_loading == 1 ? "s" : "");
  } else if (facts.loaded_recently)
    reason = "it was loaded a short while ago and may be again";
  else if (situation.request.page_cache == PageCache::keep)
    reason = "the page cache is to keep it";
  choice.why =
      fmt::format("{} is copied through the page cache because {}", place_of(facts), reason);
  return choice;
}

Choice automatic(const Situation& situation) {
  const Facts& facts = situation.facts;
  std::vector<EngineFact> rejected;
  const BackendRow* direct = first_usable({"URING", "AIO", "PREAD"}, facts, rejected);
  const BackendRow* mmap = first_usable({"MMAP"}, facts, rejected);
  const bool drops = situation.request.page_cache == PageCache::drop;
  const bool around =
      direct != nullptr && !facts.filesystem.memory &&
      (drops || situation.speckled() || situation.seen_faster(short_name(*direct).c_str(), "mmap"));
  Choice choice;
  if (situation.may_map() && mmap != nullptr &&
      (!around || situation.cold_bytes() == 0 || (situation.too_large() && !drops))) {
    choice = map_all(situation, *mmap);
  } else if (facts.filesystem.sequential && situation.cold_bytes() > 0) {
    choice = stream(situation);
  } else if (direct != nullptr && !facts.filesystem.memory && situation.cold_bytes() > 0 &&
             (drops || !situation.shared())) {
    choice = read_direct(situation, *direct);
  } else {
    choice = read_buffered(situation);
  }
  choice.drop_cache = drops;
  choice.rejected = std::move(rejected);
  return choice;
}

// One named backend for everything.
Choice named(const Situation& situation, const BackendRow& backend) {
  Choice choice;
  choice.name = short_name(backend);
  choice.why = fmt::format("{} was asked for", backend.name);
  choice.map_warm = choice.map_cold = choice.name == "mmap" && situation.may_map() &&
                                      situation.request.page_cache != PageCache::drop;
  choice.lanes = {lane_of(backend, Coverage::all, situation.facts, situation.request)};
  choice.drop_cache = situation.request.page_cache == PageCache::drop;
  return choice;
}

}  // namespace

Choice choose(const Facts& facts, const Profile& profile, const ChoiceRequest& request) {
  const Situation situation{facts, profile, request};
  std::vector<EngineFact> rejected;
  std::vector<std::string> reasons;
  for (const BackendRow* row : backends_named(request.backend)) {
    std::string reason = rejection(*row, facts);
    if (reason.empty()) {
      Choice choice = named(situation, *row);
      choice.rejected = std::move(rejected);
      return choice;
    }
    reasons.push_back(fmt::format("{}: {}", row->name, reason));
    rejected.push_back({row->name, std::move(reason)});
  }
  if (request.strict && !reasons.empty()) {
    throw Error(ErrorCode::usage,
                fmt::format("no backend can be used: {}", fmt::join(reasons, "; ")));
  }
  Choice choice = automatic(situation);
  if (!reasons.empty()) {
    choice.why += fmt::format(" (not as asked: {})", fmt::join(reasons, "; "));
    choice.rejected.insert(choice.rejected.begin(), rejected.begin(), rejected.end());
  }
  return choice;
}

std::string to_json(const Choice& choice) {
  std::vector<std::string> lanes;
  constexpr const char* kCoverage[] = {"all", "resident", "cold"};
  for (const LaneChoice& lane : choice.lanes) {
    lanes.push_back(fmt::format(
        R"({{"engine":{},"direct":{},"coverage":"{}","count":{},"most":{},"sequential":{},)"
        R"("block_size":{},"depth":{},"most_depth":{}}})",
        json_string(lane.engine), lane.direct, kCoverage[static_cast<size_t>(lane.coverage)],
        lane.count, lane.most, lane.sequential, lane.block_size, lane.depth, lane.most_depth));
  }
  return fmt::format(R"({{"name":{},"why":{},"map_warm":{},"map_cold":{},"drop_cache":{},)"
                     R"("lanes":[{}],"rejected":{}}})",
                     json_string(choice.name), json_string(choice.why), choice.map_warm,
                     choice.map_cold, choice.drop_cache, fmt::join(lanes, ","),
                     to_json(choice.rejected));
}

}  // namespace inrush
