#include "inrush/base/cachestat.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace inrush {
namespace {

constexpr long kCachestat = 451;  // the same number on every architecture
struct CachestatRange {
  uint64_t offset;
  uint64_t size;
};
struct CachestatAnswer {
  uint64_t cached;
  uint64_t dirty;
  uint64_t writeback;
  uint64_t evicted;
  uint64_t recently_evicted;
};

}  // namespace

std::optional<uint64_t> cached_pages(int fd, uint64_t offset, uint64_t size) {
  CachestatRange range{offset, size};
  CachestatAnswer answer{};
  if (::syscall(kCachestat, fd, &range, &answer, 0U) != 0) return std::nullopt;
  return answer.cached;
}

}  // namespace inrush
