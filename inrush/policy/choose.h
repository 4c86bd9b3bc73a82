// choose(): facts and what was learnt in, the way to read out, with one sentence why. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "inrush/core/sink.h"
#include "inrush/policy/facts.h"
#include "inrush/policy/profile.h"

namespace inrush {

enum class Coverage : uint8_t { all, resident, cold };

// A set of alike lanes.
struct LaneChoice {
  std::string engine;  // row in the table of engines: "uring", "pread", "mmap", ...
  bool direct = false;
  Coverage coverage = Coverage::all;
  uint32_t count = 1;                // lanes; for sequential places: streams to begin with
  uint32_t most = 1;                 // lanes the governor may grow to
  bool sequential = false;           // each lane reads one long run, own handle
  uint64_t block_size = 1ULL << 20;  // bytes of one read
  uint32_t depth = 32;               // reads in flight to begin with, per lane
  uint32_t most_depth = 64;
  bool on_lane = false;      // its own thread copies, and finds the bytes in its caches afterwards
  bool picks_files = false;  // its engine may refuse some files and read the others
  uint32_t source = 0;       // where it reads: 0 the checkpoint's own place, then its mirrors
};

struct Choice {
  std::vector<LaneChoice> lanes;
  bool map_warm = false;        // resident windows are mapped, not read
  bool map_cold = false;        // the others too: the "mmap" lane populates them
  bool to_device = false;       // storage writes into device memory by itself
  bool register_pages = false;  // a device reads the files' own pages, registered for that
  bool drop_cache = false;      // pages that this load brought in are dropped again
  std::string name;             // short: "mmap", "uring", "pread_buffered", "mmap+uring"
  std::string why;              // one sentence
  std::vector<EngineFact> rejected;
};

enum class PageCache : uint8_t { automatic, keep, drop };
enum class MappingRule : uint8_t { automatic, never };

struct ChoiceRequest {
  std::vector<std::string> backend;  // names or policies in order; empty: automatic
  bool strict = false;               // only these, no fallback
  PageCache page_cache = PageCache::automatic;
  MappingRule mapping = MappingRule::automatic;
  bool once = false;               // the bytes are read for something else: no load will follow
  uint64_t budget = 256ULL << 20;  // bytes of staging
  uint64_t device_budget = 0;      // bytes of staging in device memory
};

// Where none of request.backend can be used the choice is automatic and says so; with `strict` an
// Error{usage} lists why each was rejected. An unknown name is an Error{usage} always.
Choice choose(const Facts& facts, const Profile& profile, const ChoiceRequest& request);

// Whether choose() would take GPUDirect Storage if it were usable. To be asked before finding out
// whether it is: that starts its driver.
bool would_take_gpudirect(Facts facts, const Profile& profile, const ChoiceRequest& request);

// The placement of every range of the plan under this choice: pure.
std::vector<Placement> place(const Plan& plan, const Facts& facts, const Choice& choice);

// Whether the range's bytes are resident as far as the facts say (its lane is the resident one).
bool is_resident(const Range& range, const Facts& facts);

std::string to_json(const Choice& choice);

}  // namespace inrush
