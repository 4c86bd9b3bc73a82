#include "inrush/policy/probes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/cachestat.h"
#include "inrush/base/fd.h"

namespace inrush {

uint64_t page_size() {
  static const auto size = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

namespace {

std::string reason(const char* what, int error_number) {
  char text[128];
  return fmt::format("{}: {}", what, strerror_r(error_number, text, sizeof text));
}

class CachestatProbe : public Probe {
 public:
  explicit CachestatProbe(int fd) : fd_(fd) {}
  [[nodiscard]] ProbeTraits traits() const override {
    // 12 ns a page without large folios, next to nothing with them.
    return {"cachestat", true, 32, false, 512, 1024};
  }
  std::optional<uint64_t> resident(uint64_t offset, uint64_t size) override {
    return cached_pages(fd_, offset, size);
  }

 private:
  int fd_;  // the blob's
};

std::unique_ptr<Probe> make_cachestat(const Blob& blob, const FilesystemFact& filesystem,
                                      std::string& refusal) {
  if (!filesystem.own_pages) {
    refusal = fmt::format("on {} the cached pages may belong to another file", filesystem.type);
    return nullptr;
  }
  auto probe = std::make_unique<CachestatProbe>(blob.fd);
  if (probe->resident(0, page_size())) return probe;
  refusal =
      errno == EPERM ? "only those who may write the file are told" : reason("cachestat", errno);
  return nullptr;
}

// A mapping of the whole blob that is never touched.
class MincoreProbe : public Probe {
 public:
  MincoreProbe(std::byte* data, uint64_t size) : data_(data), size_(size) {}
  ~MincoreProbe() override { ::munmap(data_, size_); }
  MincoreProbe(const MincoreProbe&) = delete;
  MincoreProbe& operator=(const MincoreProbe&) = delete;

  [[nodiscard]] ProbeTraits traits() const override {
    return {"mincore", true, 1, true, 512, 1024};
  }
  std::optional<uint64_t> resident(uint64_t offset, uint64_t size) override {
    const uint64_t first = align_down(offset, page_size());
    const uint64_t bytes = align_up(std::min(offset + size, size_), page_size()) - first;
    answers_.resize(bytes / page_size());
    if (::mincore(data_ + first, bytes, answers_.data()) != 0) return std::nullopt;
    return std::count_if(answers_.begin(), answers_.end(),
                         [](auto page) { return (page & 1) != 0; });
  }

 private:
  std::byte* data_;
  uint64_t size_;
  std::vector<unsigned char> answers_;
};

std::unique_ptr<Probe> make_mincore(const Blob& blob, const FilesystemFact& filesystem,
                                    std::string& refusal) {
  struct stat status {};
  if (::fstat(blob.fd, &status) != 0) {
    refusal = reason("fstat", errno);
    return nullptr;
  }
  // The file below an overlay may lie on a read-only filesystem, where nobody "may write".
  const bool writable = filesystem.type != "overlay" &&
                        ::faccessat(blob.fd, "", W_OK, AT_EACCESS | AT_EMPTY_PATH) == 0;
  if (status.st_uid != ::geteuid() && ::geteuid() != 0 && !writable) {
    refusal = "only those who own or may write the file are told the truth";
    return nullptr;
  }
  void* data = ::mmap(nullptr, blob.size, PROT_READ, MAP_SHARED, blob.fd, 0);
  if (data == MAP_FAILED) {
    refusal = reason("mmap", errno);
    return nullptr;
  }
  return std::make_unique<MincoreProbe>(static_cast<std::byte*>(data), blob.size);
}

// A descriptor of our own, so that FADV_RANDOM (a cold look fetches one page, no read-ahead) is
// nobody else's.
Fd open_for_looks(const Blob& blob, std::string& refusal) {
  Fd fd = reopen(blob.fd, blob.name, O_RDONLY);
  if (!fd) {
    refusal = reason("open it again", errno);
  } else if (::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM) != 0) {
    refusal = "POSIX_FADV_RANDOM is refused";
    fd = Fd();
  }
  return fd;
}

class NowaitProbe : public Probe {
 public:
  explicit NowaitProbe(Fd fd) : fd_(std::move(fd)) {}
  [[nodiscard]] ProbeTraits traits() const override { return {"nowait", false, 1, false, 32, 96}; }
  std::optional<uint64_t> resident(uint64_t offset, uint64_t /*size*/) override {
    char byte = 0;
    const iovec target{&byte, 1};
    const ssize_t got = ::preadv2(fd_.get(), &target, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    if (got == 1) return 1;
    if (got < 0 && errno == EAGAIN) return 0;
    return std::nullopt;
  }

 private:
  Fd fd_;
};

std::unique_ptr<Probe> make_nowait(const Blob& blob, const FilesystemFact& /*filesystem*/,
                                   std::string& refusal) {
  Fd fd = open_for_looks(blob, refusal);
  if (!fd) return nullptr;
  auto probe = std::make_unique<NowaitProbe>(std::move(fd));
  if (probe->resident(0, page_size())) return probe;
  refusal = reason("preadv2 with RWF_NOWAIT", errno);
  return nullptr;
}

class TimingProbe : public Probe {
 public:
  explicit TimingProbe(Fd fd) : fd_(std::move(fd)) {}
  [[nodiscard]] ProbeTraits traits() const override { return {"timing", false, 1, false, 12, 36}; }
  std::optional<uint64_t> resident(uint64_t offset, uint64_t /*size*/) override {
    return is_read_at_once(fd_.get(), offset);
  }

 private:
  Fd fd_;
};

std::unique_ptr<Probe> make_timing(const Blob& blob, const FilesystemFact& filesystem,
                                   std::string& refusal) {
  if (filesystem.sequential) {
    refusal = "each look could be a request to a far server";
    return nullptr;
  }
  Fd fd = open_for_looks(blob, refusal);
  return fd ? std::make_unique<TimingProbe>(std::move(fd)) : nullptr;
}

constexpr ProbeRow kTable[] = {{"cachestat", make_cachestat},
                               {"mincore", make_mincore},
                               {"nowait", make_nowait},
                               {"timing", make_timing}};

}  // namespace

std::optional<bool> is_read_at_once(int fd, uint64_t offset) {
  constexpr auto kWarmAtMost = std::chrono::microseconds(15);
  rusage before{};
  rusage after{};
  char byte = 0;
  ::getrusage(RUSAGE_THREAD, &before);
  const auto start = std::chrono::steady_clock::now();
  const ssize_t got = ::pread(fd, &byte, 1, static_cast<off_t>(offset));
  const auto took = std::chrono::steady_clock::now() - start;
  ::getrusage(RUSAGE_THREAD, &after);
  if (got != 1) return std::nullopt;
  if (after.ru_nvcsw != before.ru_nvcsw || after.ru_inblock != before.ru_inblock) return false;
  if (took <= kWarmAtMost) return true;
  return std::nullopt;
}

std::span<const ProbeRow> probe_table() { return kTable; }

}  // namespace inrush
