#include "inrush/load/dropping.h"

#include <fcntl.h>

#include <algorithm>
#include <numeric>
#include <thread>
#include <tuple>

#include "inrush/base/align.h"
#include "inrush/base/cachestat.h"

namespace inrush {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr uint64_t kLargestFolio = 2 * kMiB;
// Of less than this between two ranges nobody asks whether it was there before.
constexpr uint64_t kSmallGap = 64 * kKiB;
// Pages that the kernel still reads ahead, or has just read, it does not drop.
constexpr int kMostLooks = 6;
constexpr auto kBetweenLooks = std::chrono::milliseconds(5);

// Whether nothing of it was there before, or too little to ask about.
bool may_go(const Blob& blob, uint64_t begin, uint64_t end) {
  return end <= begin + kSmallGap ||
         (blob.fd >= 0 && cached_pages(blob.fd, begin, end - begin) == uint64_t{0});
}

}  // namespace

Dropping::Dropping(const Preparation& preparation, const Sources& sources)
    : plan_(preparation.plan),
      sources_(sources),
      order_(plan_.ranges.size()),
      position_(plan_.ranges.size()),
      stretch_(plan_.ranges.size(), kNone),
      came_(plan_.ranges.size()) {
  const auto& ranges = plan_.ranges;
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) {
    return std::tie(ranges[a].blob, ranges[a].offset) < std::tie(ranges[b].blob, ranges[b].offset);
  });
  for (uint32_t i = 0; i < order_.size(); ++i) position_[order_[i]] = i;
  find_stretches(preparation);
}

void Dropping::find_stretches(const Preparation& preparation) {
  for (uint32_t i = 0; i < order_.size();) {
    const uint32_t blob = plan_.ranges[order_[i]].blob;
    const Blob& file = sources_.blob(0, blob);
    uint64_t reached = 0;
    for (; i < order_.size() && plan_.ranges[order_[i]].blob == blob; ++i) {
      const Range& range = plan_.ranges[order_[i]];
      if (!is_resident(range, preparation.facts)) add_range(i, file, reached);
      reached = std::max(reached, range.offset + range.size);
    }
    if (stretch_[i - 1] != kNone) end_stretch(file, reached);
  }
}

// `reached`: where the ranges before it in its file end.
void Dropping::add_range(uint32_t position, const Blob& blob, uint64_t reached) {
  const Range& range = plan_.ranges[order_[position]];
  const uint64_t end = range.offset + range.size;
  const bool first = reached == 0;  // behind the header, which the opening has read
  const bool follows = !first && stretch_[position - 1] != kNone;
  const bool near = first ? range.offset <= kLargestFolio : may_go(blob, reached, range.offset);
  if (!follows || !near) {
    const uint64_t begin =
        near && (first || range.offset > reached + kSmallGap) ? reached : range.offset;
    stretches_.push_back({range.blob, begin, begin, position, position, 0});
  }
  Stretch& stretch = stretches_.back();
  stretch.end = std::max(stretch.end, end);
  stretch.last = position;
  ++stretch.left;
  stretch_[position] = static_cast<uint32_t>(stretches_.size() - 1);
}

// The last one of a file.
void Dropping::end_stretch(const Blob& blob, uint64_t reached) {
  if (may_go(blob, reached, blob.size)) stretches_.back().end = std::max(reached, blob.size);
}

// What came without a gap around these positions, as far as a folio of its ends may reach.
Dropping::Bytes Dropping::around(uint32_t first, uint32_t last) const {
  const Stretch& stretch = stretches_[stretch_[first]];
  const auto range_at = [&](uint32_t i) -> const Range& { return plan_.ranges[order_[i]]; };
  Bytes bytes{range_at(first).offset, range_at(last).offset + range_at(last).size};
  const uint64_t least = bytes.begin - std::min(bytes.begin, kLargestFolio);
  const uint64_t most = bytes.end + kLargestFolio;
  while (first > stretch.first && came_[first - 1] && bytes.begin > least) {
    bytes.begin = range_at(--first).offset;
  }
  while (last < stretch.last && came_[last + 1] && bytes.end < most) {
    ++last;
    bytes.end = std::max(bytes.end, range_at(last).offset + range_at(last).size);
  }
  if (first == stretch.first) bytes.begin = stretch.begin;
  if (last == stretch.last) bytes.end = stretch.end;
  return bytes;
}

void Dropping::came(uint32_t source, const Grant& grant, bool direct) {
  std::vector<std::pair<uint32_t, Bytes>> due;
  {
    const std::lock_guard lock(mutex_);
    for (uint32_t i = 0, next = 0; i < grant.count; i = next) {
      const uint32_t first = position_[grant.first + i];
      const uint32_t number = stretch_[first];
      uint32_t last = first;
      for (next = i + 1; next < grant.count; ++next) {
        const uint32_t position = position_[grant.first + next];
        if (position != last + 1 || stretch_[position] != number) break;
        last = position;
      }
      if (number == kNone) continue;
      Stretch& stretch = stretches_[number];
      for (uint32_t at = first; at <= last; ++at) {
        if (!came_[at]) --stretch.left;
        came_[at] = true;
      }
      if (!direct) begun_.emplace(source, number);
      if (stretch.left == 0) {
        if (!begun_.contains({source, number})) continue;
        due.emplace_back(stretch.blob, Bytes{stretch.begin, stretch.end});
      } else if (!direct) {
        due.emplace_back(stretch.blob, around(first, last));
      }
    }
  }
  for (const auto& [blob, bytes] : due) static_cast<void>(drop(source, blob, bytes));
}

void Dropping::finish() {
  std::set<std::pair<uint32_t, uint32_t>> left;
  {
    const std::lock_guard lock(mutex_);
    left.swap(begun_);
  }
  for (int look = 0; !left.empty() && look < kMostLooks; ++look) {
    if (look > 0) std::this_thread::sleep_for(kBetweenLooks);
    std::erase_if(left, [&](const auto& one) {
      const Stretch& stretch = stretches_[one.second];
      return drop(one.first, stretch.blob, {stretch.begin, stretch.end});
    });
  }
}

bool Dropping::drop(uint32_t source, uint32_t blob, Bytes bytes) const {
  const int fd = sources_.blob(source, blob).fd;
  if (fd < 0 || bytes.end <= bytes.begin) return true;
  const uint64_t size = bytes.end - bytes.begin;
  ::posix_fadvise(fd, static_cast<off_t>(bytes.begin), static_cast<off_t>(size),
                  POSIX_FADV_DONTNEED);
  // A page at either end may be shared with what stays.
  return cached_pages(fd, bytes.begin, size).value_or(0) <= 2;
}

}  // namespace inrush
