#include "inrush/base/fresh_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <ctime>
#include <span>

#include "inrush/base/madvise.h"

namespace inrush {
namespace {

// 0.2 to 0.5 ms are usual, which is zeroing it; 2 to 5 where the host backs it page by page.
constexpr std::chrono::milliseconds kSlowTouch{1};
// Single slow ones are among others; after so many of them none is asked for this long, and twice
// as long after each that follows.
constexpr uint32_t kMostSlow = 2;
constexpr std::chrono::milliseconds kLeastPause{16};
constexpr uint32_t kMostDoublings = 6;

// Of this thread's own time: to wait for a processor is nobody's fault.
std::chrono::nanoseconds thread_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

void FreshMemory::advise(void* data, size_t size) {
  const std::span<std::byte> pages = huge_pages_in(data, size);
  if (pages.empty() || Clock::now().time_since_epoch().count() < paused_until_) return;
  if (!ask_huge_pages(pages.first(kHugePage))) return;
  const std::chrono::nanoseconds before = thread_time();
  if (::madvise(pages.data(), kHugePage, kPopulateWrite) != 0) return;
  if (thread_time() - before > kSlowTouch) {
    was_slow();
    return;
  }
  slow_ = 0;
  if (pages.size() > kHugePage) ask_huge_pages(pages.subspan(kHugePage));
}

void FreshMemory::was_slow() {
  const uint32_t slow = ++slow_;
  if (slow < kMostSlow) return;
  const auto pause = kLeastPause * (1U << std::min(slow - kMostSlow, kMostDoublings));
  paused_until_ = (Clock::now() + pause).time_since_epoch().count();
}

}  // namespace inrush
