// What the kernel really grants this process: memory it may still take and CPUs it may use, with
// every limit above it counted: cgroup v1 and v2, nested groups, containers. Asked anew at each
// call (about 0.1 ms); any thread.
#pragma once

#include <cstdint>
#include <string>

namespace inrush {

struct Grants {
  uint64_t memory_available = 0;  // bytes; the least of MemAvailable and every group's headroom
  uint64_t memory_limit = 0;      // bytes of the tightest group; 0: none is set
  uint64_t swap_free = 0;         // bytes, whatever the groups let us have of it
  uint32_t cpus = 1;              // the affinity mask, cut by the tightest quota, rounded up
  std::string group;              // folder of the memory controller's group; empty: none found
};

// `root` stands before /proc and /sys; tests put a machine of their own there.
Grants ask_grants(const std::string& root = "");

}  // namespace inrush
