#include "inrush/policy/residency.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <iterator>
#include <optional>

#include "inrush/base/align.h"

namespace inrush {

namespace {

// Pages looked at in a row to tell runs of 64 KiB from smaller ones.
constexpr uint64_t kTexturePages = 33;
constexpr size_t kTexturesAtMost = 8;
// Fewer looks than this say nothing about how finely warm and cold alternate.
constexpr size_t kFewLooks = 8;

// Scatters looks over their windows, so that no pattern of residency falls in step with them.
uint64_t scatter(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

class Judge {
 public:
  Judge(Probe& probe, uint64_t blob_size, const std::vector<bool>& wanted, const ProbeTime& time)
      : probe_(probe), traits_(probe.traits()), size_(blob_size), time_(time) {
    verdict_.assign(wanted.size(), Warmth::unknown);
    for (uint32_t window = 0; window < wanted.size(); ++window) {
      if (wanted[window]) windows_.push_back(window);
    }
  }

  std::vector<Warmth> run() {
    size_t counted = 0;
    if (traits_.counts) counted = count_all();
    sample({windows_.begin() + static_cast<ptrdiff_t>(counted), windows_.end()});
    tell_mixed_from_speckled();
    return std::move(verdict_);
  }

 private:
  [[nodiscard]] uint64_t bytes_in(uint32_t window, uint64_t count = 1) const {
    return std::min((window + count) * Residency::kWindow, size_) - window * Residency::kWindow;
  }

  [[nodiscard]] uint64_t pages_in(uint32_t window, uint64_t count = 1) const {
    return (bytes_in(window, count) + page_size() - 1) / page_size();
  }

  // The verdict on a range all of whose pages were counted.
  static Warmth verdict_on(std::optional<uint64_t> resident, uint64_t pages) {
    if (!resident) return Warmth::unknown;
    if (*resident == 0) return Warmth::cold;
    return *resident >= pages ? Warmth::warm : Warmth::mixed;
  }

  // Counts whole stretches while there is time; windows only where a stretch is mixed. Returns
  // how many of windows_ have their verdict.
  size_t count_all() {
    size_t next = 0;
    while (next < windows_.size() && Clock::now() < time_.counting) {
      size_t end = next + 1;
      while (end < windows_.size() && end - next < traits_.stretch &&
             windows_[end] == windows_[end - 1] + 1) {
        ++end;
      }
      const uint32_t first = windows_[next];
      const uint64_t count = end - next;
      const auto resident = probe_.resident(first * Residency::kWindow, bytes_in(first, count));
      const Warmth verdict = verdict_on(resident, pages_in(first, count));
      for (; next < end; ++next) {
        const uint32_t window = windows_[next];
        verdict_[window] =
            verdict == Warmth::mixed && count > 1
                ? verdict_on(probe_.resident(window * Residency::kWindow, bytes_in(window)),
                             pages_in(window))
                : verdict;
      }
    }
    return next;
  }

  // Looks into one window: 8 pages where the probe counts, else one page in either half.
  Warmth look(uint32_t window) {
    const uint64_t pages = pages_in(window);
    const uint64_t start = window * Residency::kWindow;
    const uint64_t at = scatter(window);
    if (traits_.counts) {
      const uint64_t count = std::min<uint64_t>(8, pages);
      const uint64_t first = at % (pages - count + 1);
      const uint64_t offset = start + first * page_size();
      return verdict_on(probe_.resident(offset, count * page_size()), count);
    }
    const auto one = probe_.resident(start + at % pages * page_size(), page_size());
    if (!one || pages < 8) return verdict_on(one, 1);
    const uint64_t other = (at + pages / 2) % pages;
    const auto two = probe_.resident(start + other * page_size(), page_size());
    if (!two || *one == *two) return verdict_on(one, 1);
    return Warmth::mixed;
  }

  // Whether looks that cost a read must stop.
  [[nodiscard]] bool out_of_time() const {
    return !traits_.counts && Clock::now() >= time_.looking;
  }

  // Which of `count` windows to look into: both ends, then the middles of what lies between, so
  // that whenever time runs out the looks so far lie evenly. Ascending.
  std::vector<size_t> look_evenly(const std::vector<uint32_t>& windows) {
    const size_t most = std::min<size_t>(windows.size(), traits_.spread_looks);
    std::vector<size_t> looked;
    for (size_t i = 0; i < most; ++i) {
      // The order by bits reversed: 0, 1, 1/2, 1/4, 3/4, 1/8 ...
      const size_t power = i < 2 ? 1 : std::bit_floor(i - 1);
      const size_t numerator = i < 2 ? i : 2 * (i - 1 - power) + 1;
      const size_t denominator = i < 2 ? 1 : 2 * power;
      const size_t at = (windows.size() - 1) * numerator / denominator;
      if (std::find(looked.begin(), looked.end(), at) != looked.end()) continue;
      if (looked.size() >= time_.least_looks && out_of_time()) break;
      verdict_[windows[at]] = look(windows[at]);
      looked.push_back(at);
    }
    std::sort(looked.begin(), looked.end());
    return looked;
  }

  // Fills between looks that agree, and bisects between those that do not.
  void sample(const std::vector<uint32_t>& windows) {
    if (windows.empty()) return;
    const std::vector<size_t> looked = look_evenly(windows);
    more_looks_ = traits_.more_looks;
    size_t unlike = 0;
    for (size_t i = 0; i < looked.size(); ++i) {
      const Warmth here = verdict_[windows[looked[i]]];
      const bool changed = i > 0 && here != verdict_[windows[looked[i - 1]]];
      if (here == Warmth::mixed || changed) ++unlike;
    }
    // Where looks change their mind all the time, warm and cold alternate too finely to be told
    // apart by windows.
    const bool fine = looked.size() >= kFewLooks && unlike * 3 > looked.size();
    for (size_t i = 1; i < looked.size(); ++i) {
      if (fine) {
        fill(windows, looked[i - 1], looked[i], Warmth::mixed);
        verdict_[windows[looked[i]]] = Warmth::mixed;
      } else {
        settle(windows, looked[i - 1], looked[i]);
      }
    }
    if (fine) verdict_[windows[0]] = Warmth::mixed;  // the loop began behind it
  }

  // Gives the windows strictly between two looked-at ones their verdicts.
  void settle(const std::vector<uint32_t>& windows, size_t low, size_t high) {
    while (high - low > 1 && verdict_[windows[low]] != verdict_[windows[high]] && more_looks_ > 0 &&
           !out_of_time()) {
      --more_looks_;
      const size_t middle = low + (high - low) / 2;
      const Warmth seen = look(windows[middle]);
      verdict_[windows[middle]] = seen;
      if (seen == verdict_[windows[low]]) {
        fill(windows, low, middle, seen);
        low = middle;
      } else {
        if (seen == verdict_[windows[high]]) {
          fill(windows, middle, high, seen);
        } else {
          settle(windows, middle, high);
        }
        high = middle;
      }
    }
    const Warmth left = verdict_[windows[low]];
    const Warmth right = verdict_[windows[high]];
    fill(windows, low, high, left == right ? left : Warmth::mixed);
  }

  void fill(const std::vector<uint32_t>& windows, size_t low, size_t high, Warmth verdict) {
    for (size_t i = low + 1; i < high; ++i) verdict_[windows[i]] = verdict;
  }

  // Reading around holes pays unless they are many. Measured on a virtio disk, half of the pages
  // resident, against reading all of it direct: runs of 16 KiB and up take half the time, single
  // random pages as long; with 75 % of the pages resident even those take half the time. Disks
  // that count requests fare worse, hence 64 KiB.
  Warmth texture_of(uint32_t window) {
    if (out_of_time()) return Warmth::mixed;
    const uint64_t pages = std::min(kTexturePages, pages_in(window));
    const uint64_t start = scatter(~window) % (pages_in(window) - pages + 1);
    uint64_t warm = 0;
    uint64_t changes = 0;
    std::optional<uint64_t> before;
    for (uint64_t i = 0; i < pages; ++i) {
      const auto now =
          probe_.resident(window * Residency::kWindow + (start + i) * page_size(), page_size());
      if (!now) continue;
      warm += *now;
      if (before && *before != *now) ++changes;
      before = now;
    }
    return changes >= 3 && warm * 5 <= pages * 3 ? Warmth::speckled : Warmth::mixed;
  }

  // Examines a few of the mixed windows; the others are as the nearest one examined.
  void tell_mixed_from_speckled() {
    std::vector<uint32_t> mixed;
    std::copy_if(windows_.begin(), windows_.end(), std::back_inserter(mixed),
                 [&](uint32_t window) { return verdict_[window] == Warmth::mixed; });
    if (mixed.empty()) return;
    const size_t examined = std::min<size_t>(mixed.size(), traits_.counts ? kTexturesAtMost : 1);
    for (size_t i = 0; i < examined; ++i) {
      const size_t first = i * mixed.size() / examined;
      const size_t end = (i + 1) * mixed.size() / examined;
      const Warmth texture = texture_of(mixed[first + (end - first) / 2]);
      for (size_t k = first; k < end; ++k) verdict_[mixed[k]] = texture;
    }
  }

  Probe& probe_;
  ProbeTraits traits_;
  uint64_t size_;
  ProbeTime time_;
  std::vector<uint32_t> windows_;  // the wanted ones, ascending
  std::vector<Warmth> verdict_;    // of all
  uint32_t more_looks_ = 0;
};

Residency residency_of(std::vector<Warmth> windows, const char* method, uint64_t blob_size) {
  Residency residency{std::move(windows), method, 0};
  for (size_t i = 0; i < residency.windows.size(); ++i) {
    if (residency.windows[i] != Warmth::warm) continue;
    residency.warm_bytes +=
        std::min((i + 1) * Residency::kWindow, blob_size) - i * Residency::kWindow;
  }
  return residency;
}

// Whether a claim that everything is resident stands up to a few reads. A true one costs no
// request, on the blob's own descriptor not even an open; and a false one there some read-ahead.
// One of them may wait though its page is there: on a busy machine 3 of 120 loads of 20 small files
// on FUSE had one that did, which then cost an open, and was of unknown residency.
bool stands_up(const Blob& blob) {
  constexpr uint64_t kLooks = 6;
  constexpr uint32_t kMayWait = 1;
  uint32_t waited = 0;
  for (uint64_t i = 0; i < kLooks; ++i) {
    const uint64_t offset =
        align_down((blob.size - 1) / kLooks * i + scatter(i) % Residency::kWindow, 4096);
    if (is_read_at_once(blob.fd, std::min(offset, blob.size - 1)) == false) ++waited;
    if (waited > kMayWait) return false;
  }
  return true;
}

}  // namespace

Residency probe_residency_by(Probe& probe, uint64_t blob_size, const std::vector<bool>& wanted,
                             const ProbeTime& time) {
  return residency_of(Judge(probe, blob_size, wanted, time).run(), probe.traits().name, blob_size);
}

Residency probe_residency(const Blob& blob, const FilesystemFact& filesystem,
                          const std::vector<bool>& wanted, const ProbeTime& time) {
  const std::vector<Warmth> unknown(wanted.size(), Warmth::unknown);
  if (blob.fd < 0 || blob.size == 0 ||
      std::find(wanted.begin(), wanted.end(), true) == wanted.end())
    return residency_of(unknown, "none", blob.size);
  if (filesystem.memory) {
    std::vector<Warmth> warm = unknown;
    for (size_t i = 0; i < warm.size(); ++i) {
      if (wanted[i]) warm[i] = Warmth::warm;
    }
    return residency_of(std::move(warm), "tmpfs", blob.size);
  }
  std::string refusal;
  for (const ProbeRow& row : probe_table()) {
    const auto probe = row.make(blob, filesystem, refusal);
    if (!probe) continue;
    Residency residency = probe_residency_by(*probe, blob.size, wanted, time);
    const bool claims_all = std::all_of(
        residency.windows.begin(), residency.windows.end(),
        [](Warmth warmth) { return warmth == Warmth::warm || warmth == Warmth::unknown; });
    if (probe->traits().may_claim_all && claims_all && !stands_up(blob)) continue;
    return residency;
  }
  return residency_of(unknown, "none", blob.size);
}

}  // namespace inrush
