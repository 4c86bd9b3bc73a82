// Which windows of a blob are in the page cache, as told by the first probe that can be true there.
// A fully warm or fully cold file of any size is judged in about 1 ms; what no probe can tell, or
// what there was no time to look at, is unknown. One thread.
#pragma once

#include <chrono>
#include <vector>

#include "inrush/core/blob.h"
#include "inrush/core/engine.h"
#include "inrush/policy/facts.h"
#include "inrush/policy/probes.h"

namespace inrush {

// Time that all blobs of one load share.
struct ProbeTime {
  // Until then every page is counted; afterwards windows are sampled.
  Deadline counting = Clock::now() + std::chrono::microseconds(1000);
  // Until then looks that cost a read of a page (nowait, timing) are made.
  Deadline looking = Clock::now() + std::chrono::microseconds(2500);
  // So many looks are made at a blob however late it is.
  uint32_t least_looks = 5;
};

// One verdict for each window of the blob; windows that are not wanted stay unknown.
Residency probe_residency(const Blob& blob, const FilesystemFact& filesystem,
                          const std::vector<bool>& wanted, const ProbeTime& time);

// The same by one given probe; for tests and for comparing probes.
Residency probe_residency_by(Probe& probe, uint64_t blob_size, const std::vector<bool>& wanted,
                             const ProbeTime& time);

}  // namespace inrush
