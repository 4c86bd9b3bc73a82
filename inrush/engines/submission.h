// What every engine demands of the reads that it is given, before it takes any of them. Pure.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "inrush/core/engine.h"

namespace inrush {

// Throws Error{usage} naming the engine, where these are more than may be added to what is in
// flight.
void check_room(const EngineTraits& traits, size_t reads, size_t in_flight);

// Throws Error{usage} naming the engine and the read, where one is of none of its `files` files, or
// has no bytes or no target.
void check_reads(const EngineTraits& traits, std::span<const Read> reads, size_t files);

// The error of a read that this engine cannot take.
Error refused(const EngineTraits& traits, const Read& read, const std::string& why);

}  // namespace inrush
