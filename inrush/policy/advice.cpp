#include "inrush/policy/advice.h"

#include <fmt/format.h>

#include <cstdio>

#include "inrush/base/align.h"

namespace inrush {

namespace {

constexpr uint64_t kUsefulMemlock = 64 * kMiB;
constexpr uint32_t kUsefulReadAheadKib = 4096;

bool kernel_is_before(const std::string& release, int major, int minor) {
  int here_major = 0;
  int here_minor = 0;
  if (std::sscanf(release.c_str(), "%d.%d", &here_major, &here_minor) != 2) return false;
  return here_major < major || (here_major == major && here_minor < minor);
}

std::string megabytes(uint64_t bytes) { return fmt::format("{} MB", bytes / 1'000'000); }

void advise_on_place(const Facts& facts, std::vector<Advice>& advice) {
  const FilesystemFact& place = facts.filesystem;
  if (facts.blobs == 0) return;
  if (place.sequential) {
    advice.push_back({"keep a copy of the checkpoint on a local disk",
                      fmt::format("{} is far: every read of it costs a request", place.type)});
    if (place.read_ahead_kib > 0 && place.read_ahead_kib < kUsefulReadAheadKib) {
      advice.push_back({fmt::format("raise read_ahead_kb in /sys/class/bdi of this mount to {}",
                                    kUsefulReadAheadKib),
                        fmt::format("it is {}, so that a stream waits for a round trip each {} KiB",
                                    place.read_ahead_kib, place.read_ahead_kib)});
    }
  }
  if (!place.sequential && !place.memory && !place.direct) {
    advice.push_back(
        {"keep the checkpoint on ext4, xfs or another filesystem with direct I/O",
         fmt::format("{} has none, so that every load goes through the page cache", place.type)});
  }
  if (facts.unknown_bytes * 2 > facts.wanted_bytes && !place.sequential) {
    advice.push_back({"load as the files' owner, or as one who may write them",
                      "the kernel tells others nothing of what is in the page cache"});
  }
}

void advise_on_memory(const Facts& facts, std::vector<Advice>& advice) {
  const MachineFact& machine = facts.machine;
  if (facts.wanted_bytes > machine.memory_available) {
    advice.push_back(
        {machine.memory_limit > 0 ? fmt::format("raise the cgroup's memory limit, now {}",
                                                megabytes(machine.memory_limit))
                                  : "use a machine with more memory, or load fewer tensors",
         fmt::format("the checkpoint has {}, and {} can still be taken",
                     megabytes(facts.wanted_bytes), megabytes(machine.memory_available))});
  }
  if (machine.huge_pages == "never") {
    advice.push_back({"write madvise to /sys/kernel/mm/transparent_hugepage/enabled",
                      "copies into fresh memory run at 3.8 GB/s in huge pages, 2.4 in small ones "
                      "(measured with two threads)"});
  }
  if (machine.memlock_limit < kUsefulMemlock) {
    advice.push_back({fmt::format("raise the limit of locked memory (ulimit -l) to {}",
                                  megabytes(kUsefulMemlock)),
                      fmt::format("it is {}, too little to register buffers with the kernel",
                                  megabytes(machine.memlock_limit))});
  }
}

void advise_on_kernel(const Facts& facts, std::vector<Advice>& advice) {
  for (const EngineFact& engine : facts.engines) {
    if (engine.name != "uring" || engine.reason.empty()) continue;
    advice.push_back(
        {"allow io_uring: kernel.io_uring_disabled=0, and a seccomp profile with "
         "io_uring_setup, io_uring_enter and io_uring_register",
         fmt::format("it keeps a disk busy with one thread; here: {}", engine.reason)});
  }
  if (kernel_is_before(facts.machine.kernel, 5, 14)) {
    advice.push_back({"run Linux 5.14 or later",
                      "older kernels cannot fill a mapping without a signal for what is missing "
                      "(MADV_POPULATE_READ)"});
  }
}

}  // namespace

std::vector<Advice> advise(const Facts& facts, const Surroundings& surroundings) {
  std::vector<Advice> advice;
  advise_on_place(facts, advice);
  advise_on_memory(facts, advice);
  advise_on_kernel(facts, advice);
  if (surroundings.registry_folder.empty()) {
    advice.push_back({"make /dev/shm writable",
                      "processes that load the same files cannot find each other, and each reads "
                      "them from the disk"});
  }
  if (surroundings.profile_path.empty()) {
    advice.push_back({"set HOME, XDG_CACHE_HOME or INRUSH_PROFILE",
                      "what one load learns about a disk is not kept for the next"});
  }
  return advice;
}

}  // namespace inrush
