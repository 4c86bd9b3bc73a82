// What the lanes of one load count while they work, and the seconds that its consumer sees.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace inrush {

// How long after it was stopped a load waits for its lanes, all who wait together.
constexpr auto kShutDown = std::chrono::milliseconds(900);

struct LoadCounts {
  std::atomic<uint32_t> reading{0};  // lanes that have not let go of their engine
  std::atomic<uint64_t> bytes_placed{0};
  std::atomic<uint32_t> depth{0};
  std::atomic<uint32_t> streams{0};  // that a sequential place wants by now
  // Bytes that engines may write: grows at submission, shrinks as reads are reaped.
  std::atomic<int64_t> in_flight{0};
  std::atomic<int64_t> next_report_ns{0};
};

// Guarded by the board's lock, as are the times.
struct LaneCounts {
  std::chrono::steady_clock::time_point stopped{};  // by an error, a cancel or the end of the load
  uint32_t alive = 0;
  uint32_t started = 0;
  std::map<std::string, uint32_t> alike;  // by row_of(): those that have not done without
};

struct LoadTimes {
  double whole = 0;          // from the beginning to the last byte
  double first = 0;          // to the first tensor
  double consumer_wait = 0;  // for bytes
  double budget_wait = 0;    // of lanes
};

}  // namespace inrush
