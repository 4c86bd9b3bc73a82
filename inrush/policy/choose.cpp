#include "inrush/policy/choose.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "inrush/base/align.h"
#include "inrush/core/error.h"
#include "inrush/policy/backends.h"

namespace inrush {

namespace {

// A way that was measured must be this much better than the one preferred without measurements.
constexpr double kClearlyBetter = 1.10;
// Of the memory that may still be taken, what populating leaves alone. Little: page cache is given
// back when somebody needs it, and a cgroup is often cut to fit.
constexpr uint64_t kLeave = 64 * kMiB;
// Copying through the page cache moves about this much a second for each CPU; a disk slower than
// that loses nothing by it.
constexpr double kBufferedPerCpu = 0.6e9;

// "3.2 GB", "512 kB": decimal, as disks and networks are sold.
std::string bytes_text(uint64_t bytes) {
  const auto number = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", number / 1e9);
  if (bytes >= 1'000'000) return fmt::format("{:.0f} MB", number / 1e6);
  if (bytes >= 1'000) return fmt::format("{:.0f} kB", number / 1e3);
  return fmt::format("{} bytes", bytes);
}

// What choose() asks of the facts again and again.
struct Question {
  const Facts& facts;
  const Profile& profile;
  const ChoiceRequest& request;
  std::vector<EngineFact> rejected;

  [[nodiscard]] uint64_t cold_bytes() const {
    const uint64_t others =
        facts.warm_bytes + facts.mixed_bytes + facts.speckled_bytes + facts.unknown_bytes;
    return facts.wanted_bytes - std::min(facts.wanted_bytes, others);
  }

  // Of what is not warm, what the disk is asked for where holes are filled: half of mixed windows.
  [[nodiscard]] double missing_share() const {
    const uint64_t read = facts.wanted_bytes - std::min(facts.wanted_bytes, facts.warm_bytes);
    const auto mixed = static_cast<double>(std::min(facts.mixed_bytes, read));
    return read == 0 ? 1 : 1 - mixed / 2 / static_cast<double>(read);
  }

  [[nodiscard]] bool all_warm() const { return facts.warm_bytes == facts.wanted_bytes; }

  // Whether this memory would hold so many bytes more.
  [[nodiscard]] bool fits(uint64_t bytes) const {
    return bytes + kLeave <= facts.machine.memory_available;
  }

  bool usable(const BackendRow& backend) {
    std::string reason = rejection(backend, facts, request);
    if (reason.empty()) return true;
    reject(backend.name, std::move(reason));
    return false;
  }
  void reject(const char* name, std::string reason) {
    const bool known = std::any_of(rejected.begin(), rejected.end(),
                                   [&](const EngineFact& one) { return one.name == name; });
    if (!known) rejected.push_back({name, std::move(reason)});
  }

  // The best of the backends around the page cache; nullptr where there is none.
  const BackendRow* direct_backend() {
    for (const char* name : {"URING", "AIO", "PREAD"}) {
      if (usable(backend_named(name))) return &backend_named(name);
    }
    return nullptr;
  }

  // Whether private mappings of the files may stand in for reading them.
  bool may_map() {
    std::string reason;
    if (request.mapping == MappingRule::never)
      reason = "mapping=never was asked for";
    else if (!facts.private_host_memory)
      reason = "the bytes go into the caller's memory";
    else if (!facts.filesystem.may_map && !(facts.filesystem.sequential && all_warm()))
      reason =
          fmt::format("{} is not among the filesystems that are mapped", facts.filesystem.type);
    if (reason.empty()) return true;
    reject("MMAP", reason);
    return false;
  }

  // A lane with the depth that was settled on the last time, where one is known.
  [[nodiscard]] LaneChoice lane(const BackendRow& backend, Coverage coverage) const {
    LaneChoice lane = lane_of(backend, coverage, facts, request);
    const PathRate* rate = profile.find(facts.filesystem.id, short_name(backend));
    if (rate != nullptr && rate->depth > 0) lane.depth = std::min(rate->depth, lane.most_depth);
    return lane;
  }
  [[nodiscard]] LaneChoice lane(const char* backend, Coverage coverage) const {
    return lane(backend_named(backend), coverage);
  }

  [[nodiscard]] double rate_of(const std::string& way) const {
    const PathRate* rate = profile.find(facts.filesystem.id, way);
    return rate == nullptr ? 0 : rate->bytes_per_second;
  }

  // Of warm bytes to the one device that they go to.
  [[nodiscard]] double warm_rate_of(const std::string& way) const {
    const PathRate* rate = profile.find(device_path(facts), way, Profile::kWarm);
    return rate == nullptr ? 0 : rate->bytes_per_second;
  }

  // "3.2 GB cold on ext4", "1.0 GB warm and 2.2 GB cold on ext4"
  [[nodiscard]] std::string case_text() const {
    std::vector<std::string> parts;
    const auto add = [&](uint64_t bytes, const char* what) {
      if (bytes > 0) parts.push_back(fmt::format("{} {}", bytes_text(bytes), what));
    };
    add(facts.warm_bytes, "warm");
    add(facts.mixed_bytes, "partly warm");
    add(facts.speckled_bytes, "warm in specks");
    add(cold_bytes(), "cold");
    add(facts.unknown_bytes, "of unknown residency");
    const std::string last = parts.empty() ? "nothing" : parts.back();
    if (parts.size() < 2) return fmt::format("{} on {}", last, facts.filesystem.type);
    parts.pop_back();
    return fmt::format("{} and {} on {}", fmt::join(parts, ", "), last, facts.filesystem.type);
  }
  [[nodiscard]] std::string memory_text() const {
    return fmt::format("{} of memory free", bytes_text(facts.machine.memory_available));
  }
};

Choice named(std::string name, std::string why) {
  Choice choice;
  choice.name = std::move(name);
  choice.why = std::move(why);
  return choice;
}

// Bytes a second, cold, to the one device that the tensors go to; 0: not measured.
struct CompetingRates {
  double gpudirect = 0;
  double others = 0;  // the best of them
};

CompetingRates competing_rates(const Facts& facts, const Profile& profile) {
  CompetingRates rates;
  if (facts.target.name.empty()) return rates;
  const auto rate = [&](const char* way) {
    const PathRate* known = profile.find(device_path(facts), way);
    return known == nullptr ? 0 : known->bytes_per_second;
  };
  rates.gpudirect = rate("cufile");
  for (const char* way : {"uring", "aio", "pread", "pread_buffered", "mmap"}) {
    rates.others = std::max(rates.others, rate(way));
  }
  return rates;
}

bool gpudirect_pays(const Facts& facts, const Profile& profile) {
  const CompetingRates rates = competing_rates(facts, profile);
  return rates.others > 0 && rates.gpudirect >= kClearlyBetter * rates.others;
}

// What follows are the ways to load; each returns a whole Choice.

Choice to_device(const Question& ask, const BackendRow& backend, std::string why) {
  Choice choice = named(short_name(backend), std::move(why));
  choice.to_device = true;
  choice.lanes.push_back(ask.lane(backend, Coverage::all));
  return choice;
}

// What cannot be mapped (slices, misaligned tensors, small runs) is copied beside it.
Choice map_what_is_warm(const Question& ask) {
  Choice choice = named("mmap", ask.case_text() + ": mapping it costs no copy");
  choice.map_warm = true;
  choice.lanes.push_back(ask.lane("PREAD_BUFFERED", Coverage::all));
  return choice;
}

// Why no device reads the files' own pages; empty: one can.
std::string why_not_register(const Facts& facts, const ChoiceRequest& request) {
  if (facts.target.name.empty()) return "the tensors do not all go to one device";
  if (!facts.target.register_refusal.empty()) return facts.target.register_refusal;
  if (request.mapping == MappingRule::never) return "mapping=never was asked for";
  if (facts.filesystem.memory || facts.filesystem.own_pages) return {};
  return fmt::format("pages of {} are not registered with a device", facts.filesystem.type);
}

// The lanes' own threads have the driver register, which is what there is to do.
LaneChoice registering_lane(const Question& ask) {
  LaneChoice lane = ask.lane("MMAP", Coverage::all);
  lane.block_size = 4 * kMiB;
  lane.count = lane.most = std::clamp(ask.facts.machine.cpus / 2, 1U, 4U);
  lane.depth = lane.most_depth = std::max(16 / lane.count, 4U);
  return lane;
}

Choice register_pages(const Question& ask, const std::string& because) {
  Choice choice = named("mmap", fmt::format("{}: {} reads the page cache's own pages, {}",
                                            ask.case_text(), ask.facts.target.name, because));
  choice.register_pages = true;
  choice.lanes.push_back(registering_lane(ask));
  return choice;
}

Choice map_and_populate(const Question& ask) {
  Choice choice = named("mmap", fmt::format("{}, {}: populating the page cache and mapping it "
                                            "costs no copy and leaves restarts warm",
                                            ask.case_text(), ask.memory_text()));
  choice.map_warm = choice.map_cold = true;
  choice.lanes.push_back(ask.lane("MMAP", Coverage::all));
  return choice;
}

Choice map_without_populating(const Question& ask) {
  Choice choice = named(
      "mmap", fmt::format("{} but {}: mapped, so that pages come when they are touched and go "
                          "when memory is short",
                          ask.case_text(), ask.memory_text()));
  choice.map_warm = choice.map_cold = true;
  choice.lanes.push_back(ask.lane("PREAD_BUFFERED", Coverage::all));
  return choice;
}

Choice read_buffered(const Question& ask, const std::string& because) {
  Choice choice = named("pread_buffered", fmt::format("{}: {}", ask.case_text(), because));
  choice.lanes.push_back(ask.lane("PREAD_BUFFERED", Coverage::all));
  choice.drop_cache = ask.request.page_cache == PageCache::drop;
  return choice;
}

// Cold bytes around the page cache; warm ones are mapped or copied out of it.
Choice read_direct(const Question& ask, const BackendRow& direct, bool map_warm,
                   const std::string& because) {
  Choice choice = named(short_name(direct), fmt::format("{}: {}", ask.case_text(), because));
  choice.map_warm = map_warm;
  if (ask.facts.warm_bytes > 0) {
    choice.name = fmt::format("{}+{}", map_warm ? "mmap" : "pread_buffered", choice.name);
    choice.lanes.push_back(ask.lane("PREAD_BUFFERED", Coverage::resident));
  }
  choice.lanes.push_back(ask.lane(direct, Coverage::cold));
  return choice;
}

Choice read_streams(const Question& ask) {
  const PathRate* known = ask.profile.find(ask.facts.filesystem.id, "pread_buffered");
  const LaneChoice lane = stream_lane(ask.facts, ask.request, known);
  Choice choice = named("pread_buffered",
                        fmt::format("{}, a place that serves long streams: {} of them to begin "
                                    "with, each reading one run",
                                    ask.case_text(), lane.count));
  choice.lanes.push_back(lane);
  choice.drop_cache = ask.request.page_cache == PageCache::drop;
  return choice;
}

// Neither page cache nor mapping nor direct I/O is there to choose from.
Choice read_remote(const Question& ask) {
  const FilesystemFact& place = ask.facts.filesystem;
  const PathRate* known = ask.profile.find(place.id, place.engine);
  const LaneChoice lane = remote_lane(ask.facts, ask.request, known);
  Choice choice = named(
      place.engine,
      fmt::format("{} from {}, a remote place: requests of {}, {} in flight to begin with{}{}",
                  bytes_text(ask.facts.wanted_bytes), place.id, bytes_text(lane.block_size),
                  lane.depth * lane.count, known != nullptr ? " as learnt from this host" : "",
                  ask.request.backend.empty() ? "" : " (backend= is about local files)"));
  choice.lanes.push_back(lane);
  return choice;
}

// And which of them to take.

// For a place that copies: the destination is not ours, or mapping is not wanted or not possible.
// Reading through the page cache is better than around it when others want the same bytes, when
// memory is ample and the disk slower than copying, and when warm and cold lie close together.
std::optional<std::string> reason_for_buffered(const Question& ask) {
  const Facts& facts = ask.facts;
  const bool ample = ask.fits(2 * facts.wanted_bytes);
  if (ask.all_warm()) return "a copy out of the page cache";
  if (ask.request.page_cache == PageCache::drop) return std::nullopt;
  if (ask.request.page_cache == PageCache::keep) return "page_cache=keep was asked for";
  if (facts.others_loading > 0) {
    return fmt::format(
        "{} other process(es) here load the same bytes: read through the page "
        "cache, so that the disk is passed over once",
        facts.others_loading);
  }
  const bool follows = ample && !ask.request.once;  // a load, which will be glad of the pages
  if (facts.loaded_recently && follows) {
    return fmt::format(
        "they were loaded here within the hour and {}: read through the page cache, "
        "for the next time",
        ask.memory_text());
  }
  if (facts.mixed_bytes * 2 > facts.wanted_bytes)
    return "buffered reads fetch only what is missing";
  if (facts.unknown_bytes * 2 > facts.wanted_bytes) {
    return "read through the page cache, which is right if they are warm and nearly so if not";
  }
  const double rate = ask.rate_of("mmap") > 0 ? ask.rate_of("mmap") : ask.rate_of("uring");
  if (follows && rate > 0 && rate < kBufferedPerCpu * facts.machine.cpus) {
    return fmt::format(
        "this disk gives {} a second, which copying through the page cache keeps up "
        "with, and restarts will be warm",
        bytes_text(static_cast<uint64_t>(rate)));
  }
  return std::nullopt;
}

// What is cold goes from storage to the device by itself.
Choice read_into_device(const Question& ask) {
  const CompetingRates rates = competing_rates(ask.facts, ask.profile);
  return to_device(ask, backend_named("CUFILE"),
                   fmt::format("{}: storage writes to {} by itself, measured here at {} a second "
                               "with its driver's start, against {}",
                               ask.case_text(), ask.facts.target.name,
                               bytes_text(static_cast<uint64_t>(rates.gpudirect)),
                               bytes_text(static_cast<uint64_t>(rates.others))));
}

Choice choose_copying(Question& ask) {
  if (const auto reason = reason_for_buffered(ask)) return read_buffered(ask, *reason);
  if (gpudirect_pays(ask.facts, ask.profile) && ask.usable(backend_named("CUFILE"))) {
    return read_into_device(ask);
  }
  const BackendRow* direct = ask.direct_backend();
  if (direct == nullptr) return read_buffered(ask, "there is no direct I/O here");
  const double buffered = ask.rate_of("pread_buffered");
  const double around = ask.rate_of(short_name(*direct));
  if (ask.request.page_cache != PageCache::drop && around > 0 &&
      buffered >= kClearlyBetter * around) {
    return read_buffered(ask, fmt::format("measured here at {} a second, against {} for {}",
                                          bytes_text(static_cast<uint64_t>(buffered)),
                                          bytes_text(static_cast<uint64_t>(around)), direct->name));
  }
  return read_direct(ask, *direct, false, "direct reads bypass the page cache and its copy");
}

Choice choose_mapping(Question& ask) {
  const Facts& facts = ask.facts;
  if (ask.all_warm()) return map_what_is_warm(ask);
  const BackendRow* direct = ask.direct_backend();
  if (ask.request.page_cache == PageCache::drop) {
    return direct != nullptr
               ? read_direct(ask, *direct, true, "direct reads leave nothing in the page cache")
               : read_buffered(ask, "there is no direct I/O here; its pages are dropped again");
  }
  if (!ask.usable(backend_named("MMAP"))) return choose_copying(ask);
  if (!ask.fits(facts.wanted_bytes - facts.warm_bytes)) return map_without_populating(ask);
  if (direct != nullptr && facts.speckled_bytes * 2 > facts.wanted_bytes) {
    return read_direct(ask, *direct, true,
                       "reading all of it anew takes fewer requests than filling the holes");
  }
  const double populating = ask.rate_of("mmap");
  const double around = direct == nullptr ? 0 : ask.rate_of(short_name(*direct));
  // What was loaded within the hour and is cold went around the page cache: whoever comes back
  // twice comes back a third time.
  const bool alone = facts.others_loading == 0 && !facts.loaded_recently;
  if (populating > 0 && around * ask.missing_share() >= kClearlyBetter * populating && alone) {
    return read_direct(ask, *direct, true,
                       fmt::format("measured here at {} a second, against {} for populating "
                                   "mappings",
                                   bytes_text(static_cast<uint64_t>(around)),
                                   bytes_text(static_cast<uint64_t>(populating))));
  }
  return map_and_populate(ask);
}

// Warm bytes for a device: threads copy them into pinned slots, or the driver registers the files'
// own pages and the device reads those. Which is faster the processors and the driver decide, so
// each is tried, and the better one kept.
Choice choose_for_device(Question& ask) {
  const std::string refusal = why_not_register(ask.facts, ask.request);
  if (!refusal.empty()) {
    ask.reject("MMAP", refusal);
    return read_buffered(ask, "a copy out of the page cache");
  }
  const double copying = ask.warm_rate_of("pread_buffered");
  const double registering = ask.warm_rate_of("mmap");
  const std::string copied = bytes_text(static_cast<uint64_t>(copying));
  const std::string registered = bytes_text(static_cast<uint64_t>(registering));
  if (copying == 0) return read_buffered(ask, "a copy out of the page cache");
  if (registering == 0) {
    return register_pages(ask, fmt::format("tried instead of copying them, which gave {} a second "
                                           "here",
                                           copied));
  }
  if (registering < kClearlyBetter * copying) {
    return read_buffered(ask, fmt::format("a copy out of the page cache, measured here at {} a "
                                          "second, against {} where the device reads its pages",
                                          copied, registered));
  }
  return register_pages(ask, fmt::format("measured here at {} a second, against {} for copying "
                                         "them",
                                         registered, copied));
}

Choice choose_automatically(Question& ask) {
  const Facts& facts = ask.facts;
  if (facts.wanted_bytes == 0) return named("pread_buffered", "there is nothing to read");
  if (facts.filesystem.sequential && !ask.all_warm()) return read_streams(ask);
  if (!facts.target.name.empty() && ask.all_warm()) return choose_for_device(ask);
  return ask.may_map() ? choose_mapping(ask) : choose_copying(ask);
}

Choice choose_one(const Question& ask, const BackendRow& backend) {
  std::string why = fmt::format("backend={} was asked for", backend.name);
  if (backend.engine == std::string_view("cufile")) return to_device(ask, backend, std::move(why));
  Choice choice = named(short_name(backend), std::move(why));
  choice.map_warm = choice.map_cold =
      backend.engine == std::string_view("mmap") && ask.facts.private_host_memory;
  choice.register_pages = backend.engine == std::string_view("mmap") &&
                          why_not_register(ask.facts, ask.request).empty();
  if (choice.register_pages) {
    choice.lanes.push_back(registering_lane(ask));
    return choice;
  }
  choice.drop_cache = ask.request.page_cache == PageCache::drop && !backend.direct;
  choice.lanes.push_back(ask.lane(backend, Coverage::all));
  return choice;
}

// The first of the caller's candidates that can be used reads everything; if there is none, the
// choice is automatic, or with `strict` an error.
Choice choose_as_told(Question& ask) {
  std::vector<std::string> reasons;
  for (const BackendRow* backend : backends_named(ask.request.backend)) {
    std::string reason = rejection(*backend, ask.facts, ask.request);
    if (reason.empty()) return choose_one(ask, *backend);
    reasons.push_back(fmt::format("{}: {}", backend->name, reason));
    ask.reject(backend->name, std::move(reason));
  }
  const std::string all = fmt::format("{}", fmt::join(reasons, "; "));
  if (ask.request.strict) {
    throw Error(ErrorCode::usage,
                fmt::format("no backend that was asked for can be used ({})", all));
  }
  Choice choice = choose_automatically(ask);
  choice.why += fmt::format(" (not as asked: {})", all);
  return choice;
}

}  // namespace

Choice choose(const Facts& facts, const Profile& profile, const ChoiceRequest& request) {
  Question ask{facts, profile, request, {}};
  if (!facts.filesystem.engine.empty()) {
    backends_named(request.backend);  // an unknown name is an error here too
    return read_remote(ask);
  }
  Choice choice = request.backend.empty() ? choose_automatically(ask) : choose_as_told(ask);
  choice.rejected = std::move(ask.rejected);
  return choice;
}

bool would_take_gpudirect(Facts facts, const Profile& profile, const ChoiceRequest& request) {
  if (!request.backend.empty() || !gpudirect_pays(facts, profile)) return false;
  facts.backends.push_back({backend_named("CUFILE").name, ""});
  return choose(facts, profile, request).to_device;
}

}  // namespace inrush
