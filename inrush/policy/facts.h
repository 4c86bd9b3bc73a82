// Facts: what this machine, this place and these files are, gathered once before a load.
// gather_facts() asks the kernel; choose() is pure over the answer. Unknown is a value.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inrush/base/numa.h"
#include "inrush/core/blob.h"
#include "inrush/core/plan.h"

namespace inrush {

enum class Warmth : uint8_t {
  cold,      // not in the page cache
  warm,      // all of it in the page cache
  mixed,     // part of it, in runs of at least 64 KiB
  speckled,  // part of it, in smaller runs: not worth reading apart
  unknown,   // no probe here can tell
};

// Page-cache residency of one blob, by windows of kWindow bytes. Only wanted windows are probed.
struct Residency {
  static constexpr uint64_t kWindow = 2ULL << 20;
  std::vector<Warmth> windows;
  std::string method;  // the probe that answered: cachestat, mincore, nowait, timing, tmpfs, none
  uint64_t warm_bytes = 0;
};

struct EngineFact {
  std::string name;    // as in the table of engines
  std::string reason;  // why it cannot be used here; empty: it can
};

struct FilesystemFact {
  std::string type;         // "ext4", "tmpfs", "overlay", "fuse.x", or hex magic
  std::string id;           // what the profile is keyed by: UUID, else type + device model
  std::string engine;       // of a remote place: the only engine that reads it
  bool memory = false;      // tmpfs, ramfs: reading is copying
  bool may_map = false;     // on the allow-list of local filesystems
  bool sequential = false;  // wants few long streams: FUSE, NFS, Lustre, CIFS
  bool own_pages = false;   // cached pages belong to the file itself: not overlay, FUSE, ZFS
  bool direct = false;      // O_DIRECT works, by statx or by trying
  uint32_t direct_memory_align = 0;  // bytes
  uint32_t direct_offset_align = 0;
  uint32_t read_ahead_kib = 0;  // of the device, where known
};

struct MachineFact {
  std::string kernel;
  uint32_t cpus = 1;              // that the cpuset and the cgroup quota really grant
  uint64_t memory_available = 0;  // bytes this process may still take: min of MemAvailable, cgroup
  uint64_t memory_limit = 0;      // the cgroup's, 0: none
  uint64_t swap_free = 0;         // bytes, of the machine
  uint64_t memlock_limit = 0;     // RLIMIT_MEMLOCK
  uint64_t page_size = 4096;
  std::string huge_pages;  // "always", "madvise", "never"
};

// Where the tensors go, if that is one device.
struct TargetFact {
  std::string name;              // "cuda:0"; empty: the host's memory, or several places
  std::string id;                // what the profile is keyed by: model and bus
  std::string register_refusal;  // why it cannot read files' own pages; empty: it can
};

struct Facts {
  MachineFact machine;
  FilesystemFact filesystem;  // of the first blob; mixed places are split by the caller
  std::vector<EngineFact> engines;
  std::vector<EngineFact> backends;  // of those that are asked only where they are wanted
  std::vector<Residency> residency;  // per blob
  uint64_t wanted_bytes = 0;         // of the plan
  uint64_t warm_bytes = 0;           // of those
  uint64_t mixed_bytes = 0;          // in mixed windows
  uint64_t speckled_bytes = 0;
  uint64_t unknown_bytes = 0;
  uint64_t largest_target = 0;  // bytes
  uint32_t blobs = 0;
  uint32_t targets = 0;
  bool private_host_memory = true;  // the destination is the sink's own: mapping is possible
  uint32_t others_loading = 0;      // other processes here that load these blobs now
  bool loaded_recently = false;     // some process loaded them within the last hour
  NumaNode numa;                    // of the devices that the tensors go to
  TargetFact target;
  // Seconds that the driver of GPUDirect Storage took to start for this load; nothing: it ran, or
  // nobody asked for it.
  std::optional<double> gpudirect_start;
};

// Asks about this machine and these blobs: well under 1 ms besides the residency probes, which have
// 2.5 ms at most. One thread; keeps nothing.
Facts gather_facts(std::span<const Blob> blobs, const Plan& plan);

// Parts of it, for doctor.
MachineFact ask_machine();
std::vector<EngineFact> ask_engines();

// What the profile calls the way to the one device that the tensors go to, link included.
std::string device_path(const Facts& facts);

// The verdict on one window; unknown for what was not probed.
Warmth warmth_at(const Facts& facts, uint32_t blob, uint64_t window);

// Whether all of the blob is in the page cache, as far as a cheap probe can tell; unknown is no.
bool is_warm(const Blob& blob);

// JSON object of all of them, for --explain, --json and doctor.
std::string to_json(const Facts& facts);
std::string to_json(const MachineFact& machine);
std::string to_json(const FilesystemFact& filesystem);
std::string to_json(const TargetFact& target);
std::string to_json(const std::vector<EngineFact>& engines);

}  // namespace inrush
