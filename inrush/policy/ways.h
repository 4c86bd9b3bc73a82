// Ways: every name that `backend` takes, what it stands for, and why one cannot be used here.
// choose() builds its lanes from them. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/policy/choose.h"

namespace inrush {

struct Way {
  const char* backend;  // "URING_BUFFERED"
  const char* name;     // in Choice::name and in the profile: "uring_buffered"
  const char* engine;   // row in the table of engines
  bool direct;
};

std::span<const Way> way_table();

// By the name of a backend; nullptr if there is none. Case does not matter.
const Way* find_way(std::string_view backend);

// Why this way cannot be used under these facts and wishes; empty: it can.
std::string rejection(const Way& way, const Facts& facts, const ChoiceRequest& request);

// The candidates that names and policies stand for, in order. Throws Error{usage} for a name that
// is neither, listing those there are.
std::vector<const Way*> candidates(const std::vector<std::string>& backend);

// Lanes of this way: reads in flight and their sizes as the machine and the budget allow.
LaneChoice lane_of(const Way& way, Coverage coverage, const Facts& facts,
                   const ChoiceRequest& request);

// "3.2 GB", "512 kB": decimal, as disks and networks are sold.
std::string bytes_text(uint64_t bytes);

}  // namespace inrush
