// The backends that a user can name, and the lanes each of them makes. A table.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/policy/choose.h"

namespace inrush {

struct BackendRow {
  const char* name;    // as users write it: "URING_BUFFERED"
  const char* engine;  // row in the table of engines
  bool direct;
};

std::span<const BackendRow> backend_table();

// The rows that names and policies ("BUFFERED") stand for, in order and in any case of letters.
// Throws Error{usage} for an unknown one, listing those that exist.
std::vector<const BackendRow*> backends_named(const std::vector<std::string>& names);

// The row of that name, which must be one of the table's.
const BackendRow& backend_named(std::string_view name);

// Why a backend cannot be used under these facts and wishes; empty: it can.
std::string rejection(const BackendRow& backend, const Facts& facts, const ChoiceRequest& request);

// The lane of a backend for that coverage, within the machine's and the budget's means.
LaneChoice lane_of(const BackendRow& backend, Coverage coverage, const Facts& facts,
                   const ChoiceRequest& request);

// Lanes that read one long run each, for places that want few streams.
LaneChoice stream_lane(const Facts& facts, const ChoiceRequest& request, const PathRate* learnt);

// Lanes of a remote place's own engine: a far path wants large reads, and many of them in flight.
LaneChoice remote_lane(const Facts& facts, const ChoiceRequest& request, const PathRate* learnt);

// "uring" for URING, "pread_buffered" for PREAD_BUFFERED.
std::string short_name(const BackendRow& backend);

}  // namespace inrush
