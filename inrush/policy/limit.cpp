#include "inrush/policy/limit.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/aligned_bytes.h"
#include "inrush/base/cgroup.h"
#include "inrush/base/direct_io.h"
#include "inrush/base/json.h"
#include "inrush/base/madvise.h"
#include "inrush/base/parallel.h"
#include "inrush/core/engine.h"

namespace inrush {

namespace {

constexpr uint64_t kBlock = kMiB;
constexpr unsigned kDepth = 32;
constexpr unsigned kThreads = 16;
// Enough to average over; more would only take memory from others.
constexpr uint64_t kMostWarm = kGiB;

// One block of one file, in file order.
struct Block {
  int fd;
  uint64_t offset;
  uint64_t size;
};

// The tail is left out: a direct read of it may need another length.
std::vector<Block> blocks_of(std::span<const Blob> blobs, const std::vector<int>& fds,
                             uint64_t most) {
  std::vector<Block> blocks;
  uint64_t bytes = 0;
  for (size_t i = 0; i < blobs.size(); ++i) {
    for (uint64_t at = 0; at + kBlock <= blobs[i].size && bytes + kBlock <= most; at += kBlock) {
      blocks.push_back({fds[i], at, kBlock});
      bytes += kBlock;
    }
  }
  return blocks;
}

// For how long, and who may end it before.
struct Span {
  double seconds;
  const std::function<bool()>& stopped;

  [[nodiscard]] bool over(Clock::time_point start) const {
    return seconds_between(start, Clock::now()) >= seconds || (stopped && stopped());
  }
};

double since(Clock::time_point start) { return seconds_between(start, Clock::now()); }

LimitResult result_of(uint64_t bytes, double seconds, std::string method) {
  LimitResult result;
  result.bytes = bytes;
  result.seconds = seconds;
  result.bytes_per_second = seconds > 0 ? static_cast<double>(bytes) / seconds : 0;
  result.method = std::move(method);
  return result;
}

// The buffers are used again and again: memory is not what is measured here.
LimitResult direct_by_uring(const std::vector<Block>& blocks, const Span& span) {
  const std::string method = fmt::format("io_uring direct, 1 MiB x {}", kDepth);
  io_uring ring{};
  if (::io_uring_queue_init(kDepth, &ring, 0) != 0) return result_of(0, 0, method);
  AlignedBytes memory = allocate_aligned(kHugePage, kDepth * kBlock);
  const Clock::time_point start = Clock::now();
  size_t next = 0;
  unsigned in_flight = 0;
  uint64_t bytes = 0;
  bool failed = memory == nullptr;
  const auto submit = [&](uint64_t slot) {
    if (failed || next == blocks.size() || span.over(start)) return;
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring);
    if (sqe == nullptr) return;
    const Block& block = blocks[next++];
    ::io_uring_prep_read(sqe, block.fd, memory.get() + slot * kBlock,
                         static_cast<unsigned>(block.size), block.offset);
    ::io_uring_sqe_set_data64(sqe, slot);
    ++in_flight;
  };
  for (unsigned slot = 0; slot < kDepth; ++slot) submit(slot);
  while (in_flight > 0) {
    const int submitted = ::io_uring_submit_and_wait(&ring, 1);
    if (submitted < 0 && submitted != -EINTR) break;
    io_uring_cqe* cqe = nullptr;
    while (::io_uring_peek_cqe(&ring, &cqe) == 0) {
      failed |= cqe->res != static_cast<int>(kBlock);
      if (cqe->res > 0) bytes += static_cast<uint64_t>(cqe->res);
      const uint64_t slot = ::io_uring_cqe_get_data64(cqe);
      ::io_uring_cqe_seen(&ring, cqe);
      --in_flight;
      submit(slot);
    }
  }
  const double took = since(start);
  ::io_uring_queue_exit(&ring);
  // What the kernel was not asked back for it may still write to.
  if (in_flight > 0) static_cast<void>(memory.release());
  return result_of(failed ? 0 : bytes, took, method);
}

// Reads blocks with `threads` threads, each to where target() says.
template <typename Target>
LimitResult read_on_threads(const std::vector<Block>& blocks, const Span& span, unsigned threads,
                            Target target) {
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<bool> failed{false};
  const Clock::time_point start = Clock::now();
  parallel_for(threads, threads, [&](size_t i) {
    while (!failed && !span.over(start)) {
      const size_t mine = next.fetch_add(1);
      if (mine >= blocks.size()) return;
      const Block& block = blocks[mine];
      const ssize_t got =
          ::pread(block.fd, target(i, mine), block.size, static_cast<off_t>(block.offset));
      if (got != static_cast<ssize_t>(block.size)) failed = true;
      if (got > 0) bytes += static_cast<uint64_t>(got);
    }
  });
  return result_of(failed ? 0 : bytes.load(), since(start), "");
}

LimitResult measure_cold(std::span<const Blob> blobs, const Span& span) {
  std::vector<DirectIo> files;
  std::vector<int> fds;
  for (const Blob& blob : blobs) {
    files.push_back(open_direct(blob.fd, blob.name));
    if (!files.back().fd) return result_of(0, 0, files.back().refusal);
    fds.push_back(files.back().fd.get());
  }
  const std::vector<Block> blocks = blocks_of(blobs, fds, UINT64_MAX);
  if (blocks.empty()) return result_of(0, 0, "there is not 1 MiB to read");
  LimitResult result = direct_by_uring(blocks, span);
  if (result.bytes > 0) return result;
  const AlignedBytes memory = allocate_aligned(kHugePage, kThreads * kBlock);
  if (!memory) return result_of(0, 0, "no memory for buffers");
  result = read_on_threads(blocks, span, kThreads, [&](unsigned thread, size_t /*block*/) {
    return memory.get() + thread * kBlock;
  });
  result.method = fmt::format("pread direct, 1 MiB x {} threads", kThreads);
  return result;
}

LimitResult measure_warm(std::span<const Blob> blobs, const Span& span) {
  std::vector<int> fds;
  for (const Blob& blob : blobs) fds.push_back(blob.fd);
  const Grants grants = ask_grants();
  const uint64_t most = std::min(kMostWarm, align_down(grants.memory_available / 4, kBlock));
  const std::vector<Block> blocks = blocks_of(blobs, fds, most);
  if (blocks.empty()) return result_of(0, 0, "there is not 1 MiB to read");
  const uint64_t size = align_up(blocks.size() * kBlock, kHugePage);
  // Warms the pages; 4 threads, because some disks want several requests.
  const AlignedBytes scratch = allocate_aligned(kHugePage, 4 * kBlock);
  if (!scratch) return result_of(0, 0, "no memory for buffers");
  read_on_threads(blocks, {30, span.stopped}, 4, [&](unsigned thread, size_t /*block*/) {
    return scratch.get() + thread * kBlock;
  });
  void* fresh = ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (fresh == MAP_FAILED) return result_of(0, 0, "no memory to copy to");
  auto* base =
      reinterpret_cast<std::byte*>(align_up(reinterpret_cast<uintptr_t>(fresh), kHugePage));
  const bool huge = advise_huge_pages(base, size);
  LimitResult result =
      read_on_threads(blocks, span, grants.cpus,
                      [&](unsigned /*thread*/, size_t block) { return base + block * kBlock; });
  ::munmap(fresh, size + kHugePage);
  result.method = fmt::format("pread from the page cache into fresh {} pages, {} thread(s)",
                              huge ? "huge" : "small", grants.cpus);
  return result;
}

}  // namespace

LimitResult measure_limit(std::span<const Blob> blobs, LimitKind kind, double seconds,
                          const std::function<bool()>& stopped) {
  for (const Blob& blob : blobs) {
    if (blob.fd < 0) return result_of(0, 0, fmt::format("{} is no local file", blob.name));
  }
  return kind == LimitKind::cold ? measure_cold(blobs, {seconds, stopped})
                                 : measure_warm(blobs, {seconds, stopped});
}

std::string to_json(const LimitResult& result) {
  return fmt::format(R"({{"bytes_per_second":{:.0f},"bytes":{},"seconds":{:.6f},"method":{}}})",
                     result.bytes_per_second, result.bytes, result.seconds,
                     json_string(result.method));
}

}  // namespace inrush
