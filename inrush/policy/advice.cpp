#include "inrush/policy/advice.h"

#include <fmt/format.h>

#include <cstdio>

#include "inrush/base/balloon.h"
#include "inrush/policy/registry.h"

namespace inrush {

namespace {

constexpr uint32_t kLeastReadAheadKib = 1024;  // of a disk, for buffered reads of large files
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
  if (!place.sequential && place.read_ahead_kib > 0 && place.read_ahead_kib < kLeastReadAheadKib) {
    advice.push_back({"raise the device's queue/read_ahead_kb to 8192",
                      fmt::format("it reads only {} KiB ahead", place.read_ahead_kib)});
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
                                  : "open it and read tensor by tensor, load fewer tensors, or use "
                                    "a machine with more memory",
         fmt::format("the checkpoint has {}, and {} can still be taken",
                     megabytes(facts.wanted_bytes), megabytes(machine.memory_available))});
  }
  if (machine.huge_pages == "never") {
    advice.push_back({"write madvise to /sys/kernel/mm/transparent_hugepage/enabled",
                      "copies into fresh memory run at 3.8 GB/s in huge pages, 2.4 in small ones "
                      "(measured with two threads)"});
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

Surroundings ask_surroundings() {
  return {profile_problem(), registry_folder(), is_free_memory_taken_back()};
}

std::vector<Advice> advise(const Facts& facts, const Surroundings& surroundings) {
  std::vector<Advice> advice;
  advise_on_place(facts, advice);
  advise_on_memory(facts, advice);
  advise_on_kernel(facts, advice);
  if (surroundings.memory_taken_back) {
    advice.push_back(
        {"give this virtual machine memory that its host does not take back (no free "
         "page reporting)",
         "what is free here the host gives again page by page when it is used, so that "
         "512 MiB took 0.63 to 0.82 s from the disk, and 0.32 to 0.36 s into memory "
         "that had been in use a moment before (measured); fresh memory is taken in small "
         "pages, because huge ones are what the host has taken"});
  }
  if (surroundings.registry_folder.empty()) {
    advice.push_back({"make /dev/shm writable",
                      "processes that load the same files cannot find each other, and each reads "
                      "them from the disk"});
  }
  if (const ProfileProblem& problem = surroundings.profile; !problem.change.empty()) {
    advice.push_back({"the profile of what loads have taught: " + problem.change,
                      fmt::format("{} ({})", problem.instead, problem.why)});
  }
  return advice;
}

}  // namespace inrush
