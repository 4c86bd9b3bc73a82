// The kernel's answers to "is this page in the page cache?", each with the conditions under which
// it is true: one table, best first. A probe is made for one blob and used by one thread.
//   cachestat  exact and cheap; refused to those who may not write the file; sees nothing on
//   overlay mincore    exact; claims "all resident" to those who neither own nor may write the file
//   nowait     reads a byte without waiting; a cold page is then fetched in the background
//   timing     reads a byte and asks whether the thread slept; a cold page is fetched
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "inrush/core/blob.h"
#include "inrush/policy/facts.h"

namespace inrush {

struct ProbeTraits {
  const char* name = "";
  bool counts = false;  // resident() counts all pages of its range; else it looks at the first only
  uint32_t stretch = 1;        // windows that it counts in one go: some 0.2 ms at worst
  bool may_claim_all = false;  // an answer "all of it" must be checked by other means
  uint32_t spread_looks = 0;   // most looks at one blob to begin with
  uint32_t more_looks = 0;     // most further ones where those disagree
};

class Probe {
 public:
  virtual ~Probe() = default;
  [[nodiscard]] virtual ProbeTraits traits() const = 0;

  // Resident pages of [offset, +size), at most 1 where traits().counts is false; nothing where
  // this look could not tell.
  virtual std::optional<uint64_t> resident(uint64_t offset, uint64_t size) = 0;
};

struct ProbeRow {
  const char* name;
  // Nothing, and why, where its answers would not be true for this blob.
  std::unique_ptr<Probe> (*make)(const Blob& blob, const FilesystemFact& filesystem,
                                 std::string& refusal);
};

std::span<const ProbeRow> probe_table();

// A read of a cached byte takes 1-2 us and never sleeps. One of a cold page takes 30 us and more,
// and the thread sleeps (a voluntary context switch) or is charged with input. A thread that was
// merely preempted did neither, so that a busy machine does not make warm files look cold.
// Nothing where this read could not tell.
std::optional<bool> is_read_at_once(int fd, uint64_t offset);

uint64_t page_size();

}  // namespace inrush
