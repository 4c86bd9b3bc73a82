// Gives back the pages that a load brought into the page cache, where page_cache=drop was asked
// for; those that were there before stay. The kernel drops only folios that lie wholly inside of
// what it is told, and reads ahead in folios of up to 2 MiB: so a range is dropped together with
// its neighbours that came, and what lies between pages that stay once more when all of it came.
// Any thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "inrush/core/sink.h"
#include "inrush/load/sources.h"

namespace inrush {

class Dropping {
 public:
  // Before the first read: what lies between the wanted ranges is asked about now.
  Dropping(const Preparation& preparation, const Sources& sources);

  // The ranges of a grant came from that source; `direct`: around the page cache.
  void came(uint32_t source, const Grant& grant, bool direct);

  // No lane reads any more: drops what did not come wholly, and once more what did.
  void finish();

 private:
  // Bytes of a file between pages that stay.
  struct Stretch {
    uint32_t blob = 0;
    uint64_t begin = 0;
    uint64_t end = 0;
    uint32_t first = 0;  // positions of its ranges
    uint32_t last = 0;
    uint32_t left = 0;  // ranges that have not come
  };
  struct Bytes {
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  void find_stretches(const Preparation& preparation);
  void add_range(uint32_t position, const Blob& blob, uint64_t reached);
  void end_stretch(const Blob& blob, uint64_t reached);
  [[nodiscard]] Bytes around(uint32_t first, uint32_t last) const;
  // Whether nothing of it is left.
  [[nodiscard]] bool drop(uint32_t source, uint32_t blob, Bytes bytes) const;

  const Plan& plan_;
  const Sources& sources_;
  std::mutex mutex_;
  std::vector<uint32_t> order_;     // ranges by blob and offset
  std::vector<uint32_t> position_;  // of each range in order_
  std::vector<uint32_t> stretch_;   // of each position; kNone where its pages stay
  std::vector<bool> came_;          // per position
  std::vector<Stretch> stretches_;
  std::set<std::pair<uint32_t, uint32_t>> begun_;  // source and stretch
};

}  // namespace inrush
