#include "inrush/engines/slow.h"

#include <algorithm>
#include <utility>

namespace inrush {

SlowEngine::SlowEngine(std::unique_ptr<Engine> inner, const SlowOptions& options)
    : LayeredEngine(std::move(inner)), options_(options) {}

void SlowEngine::starts(Flight& flight) {
  Handle& handle = handles_[flight.read.file];
  Clock::duration busy{};
  if (options_.bytes_per_second > 0) {
    const double seconds =
        static_cast<double>(flight.read.size) / static_cast<double>(options_.bytes_per_second);
    busy += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }
  if (flight.read.offset != handle.next_offset) busy += options_.jump_penalty;
  handle.next_offset = flight.read.offset + flight.read.size;
  handle.busy_until = std::max(handle.busy_until, Clock::now()) + busy;
  flight.due = handle.busy_until + options_.latency;
}

void SlowEngine::landed(Flight& flight, std::optional<Error> error) {
  answer(flight, std::move(error), flight.due);
}

}  // namespace inrush
