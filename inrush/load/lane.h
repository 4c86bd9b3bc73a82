// A lane: an engine, a governor and a coverage. It takes the next ranges it covers from the queue,
// keeps as much in flight as its governor allows, and hands what arrives to the sink. One thread,
// which keeps the board, and with it all memory, alive until its last read is reaped.
#pragma once

#include <cstdint>
#include <memory>

#include "inrush/load/board.h"

namespace inrush {

// Runs one lane to its end on the calling thread. Never throws: what fails goes to the board.
void run_lane(const std::shared_ptr<Board>& board, const LaneChoice& choice,
              uint32_t number) noexcept;

}  // namespace inrush
