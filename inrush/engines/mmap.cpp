// Fills private mappings of the files: no byte is copied. Threads populate the pages of a read
// (MADV_POPULATE_READ), which makes an error of what would be a SIGBUS later. Targets in ordinary
// memory are filled with pread from the page cache, never copied out of a mapping.
//
// Regions are marked MADV_HUGEPAGE: a fault then fetches whole huge pages. Measured on 1 GiB of
// random bytes, cold (ext4 with large folios, Linux 6.18, 2 threads x 2 MiB), in CPU s/GB:
//   MADV_HUGEPAGE, populate       0.006-0.015, all of it mapped by huge pages
//   populate alone                0.01-0.03, nearly so; at read_ahead_kb 128: 0.17-0.25, small
//   readahead(2), then populate   0.21-0.29, all in small pages
// At read_ahead_kb 128 populating alone gave a quarter to a half of the rate. Beyond that, rates of
// 1 to 8 threads and blocks of 1 to 8 MiB did not differ by more than a busy machine's noise.
//
// What a device wrote into memory that a hypervisor does not back, the caller would pay for, on one
// thread (3 GiB: 1.9 s to populate, 5.4 s to touch). So populated pages are touched here where a
// sample says so. Where the hypervisor is known to take free memory back, no huge page is asked
// for, and once a sample was slow, readahead(2) comes first: small pages come from memory that is
// broken up and still backed. 3 GiB populated and touched, 6 s after the last use of that memory:
// 2.1 s and 0.5 CPU s; in pages as large as the kernel likes 5.0 s, in huge ones 5.7 s. But 512 MiB
// of memory that is still backed: 0.27 s in large pages, 0.46 s after readahead(2). Files that are
// smaller than a huge page are fetched whole there as well.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/backing.h"
#include "inrush/base/fd.h"
#include "inrush/base/filesystem.h"
#include "inrush/base/madvise.h"
#include "inrush/base/read_fully.h"
#include "inrush/engines/blocking.h"
#include "inrush/engines/local_files.h"
#include "inrush/engines/rows.h"

namespace inrush {

namespace {

// Between two, a thread looks whether it shall stop.
constexpr uint64_t kMostBetweenLooks = 8 * kMiB;
constexpr uint32_t kMostThreads = 16;
// Below this size of a region, fetching 2 MiB beyond its end would be a large part of it.
constexpr uint64_t kSmallRegion = 16 * kMiB;

struct Pages {
  std::byte* data;
  uint64_t size;
  uint64_t offset;  // of its first byte in the file
};

class MmapSource final : public BlockingSource {
 public:
  explicit MmapSource(const EngineOptions& options)
      : direct_(options.direct),
        huge_(options.huge_pages.value_or(huge_pages_pay())),
        read_ahead_(huge_ && !faults_fetch_huge_pages()),
        in_order_(options.depth == 1 && !huge_),
        files_("mmap", buffered(options), kMostBetweenLooks, LocalFiles::Descriptors::shared) {}

  [[nodiscard]] EngineTraits traits() const override {
    EngineTraits traits = files_.traits();
    traits.populates = true;
    return traits;
  }

  uint32_t open(const Blob& blob) override {
    if (!direct_) {
      // All files of a load lie in one place.
      if (!huge_ && !asked_) read_ahead_ = read_ahead_kib(blob.fd) * kKiB < kHugePage;
      asked_ = true;
      // The kernel reads twice as far ahead then.
      if (in_order_) ::posix_fadvise(blob.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
      return files_.open(blob);
    }
    throw Error(
        ErrorCode::usage,
        fmt::format("open {} via mmap: mappings are of the page cache, not direct", blob.name));
  }

  void attach(const Region& region) override;

  void accept(std::span<const Read> reads, size_t in_flight) override {
    files_.check(reads, in_flight);
  }

  std::optional<Error> read(const Read& read, const std::atomic<bool>& stop) override;

 private:
  static EngineOptions buffered(EngineOptions options) {
    options.direct = false;
    return options;
  }

  // Bytes of mappings without a gap from this address on; 0: it lies in other memory.
  [[nodiscard]] uint64_t mapped_from(const std::byte* address) const;
  std::optional<Error> copy(const Read& read, const std::atomic<bool>& stop);
  std::optional<Error> populate(const Read& read, uint64_t wanted, const std::atomic<bool>& stop);
  [[nodiscard]] int populate_pages(int fd, const Pages& pages, bool small) const;
  void back(int fd, const Pages& pages, const std::atomic<bool>& stop);
  std::optional<Error> fetch(const Read& read, const std::atomic<bool>& stop);

  bool direct_;
  bool asked_ = false;  // how far the kernel reads ahead
  bool huge_;           // huge pages are asked for
  // readahead(2) comes first: faults fetch little, or memory that nothing backs.
  std::atomic<bool> read_ahead_;
  bool in_order_;  // one thread, in the files' order
  uint64_t page_size_ = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  LocalFiles files_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, Region> mappings_;  // by address
};

void MmapSource::attach(const Region& region) {
  if (region.backing != Backing::mapping) return;
  const std::lock_guard lock(mutex_);
  mappings_[region.data] = region;
  if (!huge_) return;
  if (!ask_huge_pages({region.data, region.size})) {
    read_ahead_ = true;  // a kernel without transparent huge pages
  } else if (region.size < kSmallRegion) {
    ::madvise(region.data, region.size, MADV_RANDOM);
  }
}

uint64_t MmapSource::mapped_from(const std::byte* address) const {
  const std::lock_guard lock(mutex_);
  auto next = mappings_.upper_bound(address);
  if (next == mappings_.begin()) return 0;
  const std::byte* end = address;
  for (next = std::prev(next); next != mappings_.end() && next->first <= end; ++next) {
    end = std::max<const std::byte*>(end, next->second.data + next->second.size);
  }
  return static_cast<uint64_t>(end - address);
}

std::optional<Error> MmapSource::read(const Read& read, const std::atomic<bool>& stop) {
  const uint64_t size = files_.at(read.file).blob.size;
  const uint64_t wanted = std::min(read.size, size - std::min(read.offset, size));
  // What is read may begin on the last page of a mapping, that of its neighbour in the file.
  const uint64_t mapped = mapped_from(read.target);
  return mapped == 0 || mapped < wanted ? copy(read, stop) : populate(read, wanted, stop);
}

std::optional<Error> MmapSource::copy(const Read& read, const std::atomic<bool>& stop) {
  const std::shared_ptr<const Fd> fd = files_.descriptor(read.file);
  ReadProgress progress(read, files_.at(read.file).shape);
  if (read_fully(fd->get(), progress, &stop)) return std::nullopt;
  return files_.error(read, progress.error_number(), progress.arrived());
}

std::optional<Error> MmapSource::populate(const Read& read, uint64_t wanted,
                                          const std::atomic<bool>& stop) {
  const LocalFile& file = files_.at(read.file);
  const std::shared_ptr<const Fd> held = files_.descriptor(read.file);
  const int fd = held->get();
  const uint64_t before = reinterpret_cast<uintptr_t>(read.target) % page_size_;
  const uint64_t end = align_up(before + wanted, page_size_);
  const bool whole = !huge_ && fetch_whole({read.target - before, end}, file.blob.size);
  for (uint64_t at = 0; at < end; at += kMostBetweenLooks) {
    if (stop) return files_.error(read, ECANCELED);
    const Pages pages{.data = read.target - before + at,
                      .size = std::min(kMostBetweenLooks, end - at),
                      .offset = read.offset - before + at};
    const bool small = read_ahead_ && !whole;
    int failed = populate_pages(fd, pages, small);
    if (failed == EINVAL || failed == EFAULT || failed == EIO) {
      // No such advice before Linux 5.14; else pages that cannot be had. pread brings the pages
      // in too, and says why they cannot be.
      if (auto error = fetch(read, stop)) return error;
      if (failed == EINVAL) break;
      failed = populate_pages(fd, pages, small);
    }
    if (failed == EFAULT || failed == EIO) {
      return Error(ErrorCode::data, read_error(file.blob.name, read, "mmap", failed).message() +
                                        " (the file shrank or failed while being read)");
    }
    if (failed != 0) return files_.error(read, failed);
    back(fd, pages, stop);
  }
  // The last page is there even where the file was cut within it: its rest is zeros then.
  struct stat status {};
  if (::fstat(fd, &status) != 0) return files_.error(read, errno);
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size >= read.offset + read.required) return std::nullopt;
  return files_.error(read, 0, size - std::min(size, read.offset));
}

// 0 or errno.
int MmapSource::populate_pages(int fd, const Pages& pages, bool small) const {
  if (small) ::readahead(fd, static_cast<off_t>(pages.offset), pages.size);
  return inrush::populate(pages.data, pages.size, small && !huge_);
}

// Where most samples are slow, the hypervisor backs single pages there.
void MmapSource::back(int fd, const Pages& pages, const std::atomic<bool>& stop) {
  for (uint64_t part = 0; part < pages.size && !stop; part += kHugePage) {
    const uint64_t size = std::min(kHugePage, pages.size - part);
    if (!is_unbacked(fd, pages.offset + part, size)) continue;
    if (!huge_) read_ahead_ = true;
    touch_pages(fd, pages.offset + part, size);
  }
}

// Reads all of it into a small buffer, so that it comes into the page cache.
std::optional<Error> MmapSource::fetch(const Read& read, const std::atomic<bool>& stop) {
  std::vector<std::byte> buffer(std::min<uint64_t>(read.size, 256 * kKiB));
  const LocalFile& file = files_.at(read.file);
  const std::shared_ptr<const Fd> fd = files_.descriptor(read.file);
  for (uint64_t at = 0; at < read.size; at += buffer.size()) {
    Read part = read;
    part.offset += at;
    part.size = std::min<uint64_t>(buffer.size(), read.size - at);
    part.required = std::min(part.size, read.required - std::min(read.required, at));
    part.target = buffer.data();
    ReadProgress progress(part, file.shape);
    if (!read_fully(fd->get(), progress, &stop)) {
      return files_.error(read, progress.error_number(), at + progress.arrived());
    }
  }
  return std::nullopt;
}

}  // namespace

std::unique_ptr<Engine> make_mmap(const EngineOptions& options) {
  return make_blocking_engine(std::make_shared<MmapSource>(options), options.wake_fd,
                              std::min(options.depth, kMostThreads));
}

}  // namespace inrush
