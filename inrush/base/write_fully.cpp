#include "inrush/base/write_fully.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "inrush/base/align.h"
#include "inrush/base/madvise.h"

namespace inrush {

// Linux writes at most 2 GiB - 4 KiB at once; direct I/O wants whole blocks.
constexpr uint64_t kLargestWrite = 1ULL << 30;

int write_fully(int fd, uint64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const size_t count = std::min<uint64_t>(data.size(), kLargestWrite);
    const ssize_t done = ::pwrite(fd, data.data(), count, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return done < 0 ? errno : EIO;
    data = data.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  return 0;
}

size_t best_cached_write() { return huge_pages_pay() ? kLargestWrite : 64 * kKiB; }

int write_cached(int fd, uint64_t offset, std::span<const std::byte> data) {
  const size_t most = best_cached_write();
  while (!data.empty()) {
    const auto piece = data.first(std::min(data.size(), most));
    if (const int error = write_fully(fd, offset, piece)) return error;
    data = data.subspan(piece.size());
    offset += piece.size();
  }
  return 0;
}

}  // namespace inrush
