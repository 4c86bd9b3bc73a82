#include "inrush/base/block_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "inrush/base/align.h"
#include "inrush/base/write_fully.h"

namespace inrush {
namespace {

// What devices ask of direct writes, and no less than a page: one that is written both ways at
// once could lose bytes.
uint64_t unit() {
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return std::max(page, 4 * kKiB);
}

}  // namespace

int BlockFile::write(uint64_t offset, std::span<const std::byte> bytes, bool around) {
  const uint64_t begin = std::min<uint64_t>(align_up(offset, unit()) - offset, bytes.size());
  const uint64_t end = align_down(offset + bytes.size(), unit());
  if (!around || refused_ || end <= offset + begin || !is_aligned(bytes.data() + begin, unit())) {
    return write_through(offset, bytes);
  }
  const std::span<const std::byte> pages = bytes.subspan(begin, end - offset - begin);
  if (!write_around(offset + begin, pages)) return write_through(offset, bytes);
  const int failed = write_through(offset, bytes.first(begin));
  return failed != 0 ? failed : write_through(end, bytes.subspan(end - offset));
}

int BlockFile::write_through(uint64_t offset, std::span<const std::byte> bytes) {
  // The kernel lets one such write at a time into a file, and who waits there keeps a processor
  // busy.
  const std::lock_guard only(mutex_);
  return write_cached(fd_.get(), offset, bytes);
}

// False where it could not be; what is wrong with the disk shows when it is tried the other way.
bool BlockFile::write_around(uint64_t offset, std::span<const std::byte> bytes) {
  std::call_once(reopened_, [this] { direct_ = reopen(fd_.get(), "", O_WRONLY | O_DIRECT); });
  if (!direct_ || write_fully(direct_.get(), offset, bytes) != 0) {
    refused_ = true;
    return false;
  }
  around_ += bytes.size();
  return true;
}

void BlockFile::begin_sync(uint64_t offset, uint64_t size) const {
  // Where that fails, sync() has more to do.
  ::sync_file_range(fd_.get(), static_cast<off64_t>(offset), static_cast<off64_t>(size),
                    SYNC_FILE_RANGE_WRITE);
}

int BlockFile::sync() const { return ::fdatasync(fd_.get()) == 0 ? 0 : errno; }

}  // namespace inrush
