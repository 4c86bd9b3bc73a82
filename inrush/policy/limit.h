// The physical limit on given files, to print beside what a load reached: raw loops that do nothing
// but move bytes, bounded in bytes and seconds. One caller; threads of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "inrush/core/blob.h"

namespace inrush {

enum class LimitKind : uint8_t {
  cold,  // around the page cache: io_uring 1 MiB x 32, else 16 threads of direct pread
  warm,  // out of the page cache into fresh huge pages, a thread for each CPU
};

struct LimitResult {
  double bytes_per_second = 0;  // 0: it could not be measured, and `method` says why
  uint64_t bytes = 0;           // that were moved
  double seconds = 0;
  std::string method;  // "uring direct 1 MiB x 32"
};

// Moves bytes of the blobs for at most so many seconds, and at most once through them. For `warm`
// the bytes to be copied are brought into the page cache first, outside the measured time. Ends
// soon after `stopped` says so, from any of its threads.
LimitResult measure_limit(std::span<const Blob> blobs, LimitKind kind, double seconds,
                          const std::function<bool()>& stopped = {});

std::string to_json(const LimitResult& result);

}  // namespace inrush
