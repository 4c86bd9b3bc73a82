// io_uring: one ring an engine, one system call for all reads of a submit, completions announced
// by the lane's eventfd.
//
// Measured (1 MiB O_DIRECT x 32, huge pages, virtio disk, Linux 6.18): plain, COOP_TASKRUN and
// DEFER_TASKRUN all cost 0.006-0.008 CPU s/GB at the same rate, so the ring takes the one that
// spares interrupts and does not tie it to a thread. Registered buffers save 0.003 CPU s/GB on
// huge pages and 0.04 on small ones; pinning gigabytes against RLIMIT_MEMLOCK costs more.
#include <liburing.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/engines/async.h"
#include "inrush/engines/rows.h"

namespace inrush {

namespace {

constexpr int kRetriesWithoutMemory = 5;
constexpr auto kBetweenRetries = std::chrono::milliseconds(4);

// One entry carries 32 bits of length, and the kernel stops at 2 GiB less a page.
constexpr uint64_t kMostPerEntry = kGiB;
constexpr uint32_t kMostRegisteredFiles = 4096;
constexpr uint32_t kMostEntries = 4096;
constexpr uint64_t kDropRequest = UINT64_MAX;  // user_data of cancellations

std::string uring_refusal(int error_number) {
  const std::string why = system_error(ErrorCode::source, "io_uring_setup", error_number).message();
  switch (error_number) {
    case EPERM:
    case EACCES:
      return why + " (sysctl kernel.io_uring_disabled, or a seccomp profile, forbids it)";
    case ENOSYS:
      return why + " (this kernel or sandbox has no io_uring)";
    case ENOMEM:
      return why + " (raise RLIMIT_MEMLOCK: ulimit -l)";
    default:
      return why;
  }
}

// 0 or errno.
int make_ring(io_uring& ring, uint32_t entries) {
  io_uring_params params{};
  params.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CLAMP;
  const int result = io_uring_queue_init_params(entries, &ring, &params);
  if (result != -EINVAL) return -result;
  params = {};  // before Linux 5.19
  return -io_uring_queue_init_params(entries, &ring, &params);
}

// A ring that was closed a moment ago, by any process of the user's, counts until the kernel has
// taken it apart, which it does in the background.
int make_ring_in_time(io_uring& ring, uint32_t entries) {
  int failed = make_ring(ring, entries);
  for (int i = 0; failed == ENOMEM && i < kRetriesWithoutMemory; ++i) {
    std::this_thread::sleep_for(kBetweenRetries);
    failed = make_ring(ring, entries);
  }
  return failed;
}

class UringQueue final : public KernelQueue {
 public:
  // Takes the ring over.
  UringQueue(const io_uring& ring, int wake_fd);
  ~UringQueue() override { io_uring_queue_exit(&ring_); }

  bool opened(uint32_t file, int fd) override;
  size_t push(std::span<const KernelRead> reads) override;
  size_t reap(std::span<KernelAnswer> answers) override;
  void drop(uint32_t id) override;

 private:
  io_uring_sqe* next_entry();
  void send();

  io_uring ring_;
  int wake_fd_;
  uint32_t registered_files_ = 0;  // files below this number are in the ring's table
  uint32_t table_size_ = 0;
};

UringQueue::UringQueue(const io_uring& ring, int wake_fd) : ring_(ring), wake_fd_(wake_fd) {
  if (const int result = io_uring_register_eventfd(&ring_, wake_fd); result < 0) {
    io_uring_queue_exit(&ring_);
    throw system_error(ErrorCode::source, "register an eventfd with io_uring", -result);
  }
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto size = static_cast<uint32_t>(std::min<rlim_t>(limit.rlim_cur, kMostRegisteredFiles));
  if (io_uring_register_files_sparse(&ring_, size) == 0) table_size_ = size;
}

bool UringQueue::opened(uint32_t file, int fd) {
  if (file != registered_files_ || file >= table_size_) return false;
  if (io_uring_register_files_update(&ring_, file, &fd, 1) != 1) return false;
  ++registered_files_;
  return true;
}

io_uring_sqe* UringQueue::next_entry() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (entry) return entry;
  io_uring_submit(&ring_);
  return io_uring_get_sqe(&ring_);
}

size_t UringQueue::push(std::span<const KernelRead> reads) {
  size_t count = 0;
  for (const KernelRead& read : reads) {
    io_uring_sqe* entry = next_entry();
    if (!entry) break;
    const bool registered = read.file < registered_files_;
    io_uring_prep_read(entry, registered ? static_cast<int>(read.file) : read.fd, read.part.target,
                       static_cast<unsigned>(read.part.size), read.part.offset);
    if (registered) entry->flags |= IOSQE_FIXED_FILE;
    entry->user_data = read.id;
    ++count;
  }
  send();
  return count;
}

void UringQueue::send() {
  if (io_uring_sq_ready(&ring_) == 0) return;
  io_uring_submit(&ring_);
  // EAGAIN, EBUSY or EINTR: reap() tries again.
  if (io_uring_sq_ready(&ring_) > 0) inrush::ring(wake_fd_);
}

size_t UringQueue::reap(std::span<KernelAnswer> answers) {
  send();
  size_t count = 0;
  io_uring_cqe* cqe = nullptr;
  while (count < answers.size() && io_uring_peek_cqe(&ring_, &cqe) == 0) {
    if (cqe->user_data != kDropRequest) {
      answers[count++] = {.id = static_cast<uint32_t>(cqe->user_data), .result = cqe->res};
    }
    io_uring_cqe_seen(&ring_, cqe);
  }
  return count;
}

void UringQueue::drop(uint32_t id) {
  io_uring_sqe* entry = next_entry();
  if (!entry) return;  // it completes by itself
  io_uring_prep_cancel64(entry, id, 0);
  entry->user_data = kDropRequest;
}

}  // namespace

std::string uring_unusable() {
  io_uring ring{};
  if (const int failed = make_ring(ring, 2)) return uring_refusal(failed);
  io_uring_probe* probe = io_uring_get_probe_ring(&ring);
  const bool reads = probe && io_uring_opcode_supported(probe, IORING_OP_READ);
  if (probe) io_uring_free_probe(probe);
  io_uring_queue_exit(&ring);
  return reads ? "" : "this kernel's io_uring has no plain read (Linux 5.6 has)";
}

std::unique_ptr<Engine> make_uring(const EngineOptions& options) {
  AsyncParts parts;
  parts.files = std::make_unique<LocalFiles>("uring", options, kMostPerEntry);
  parts.wake = std::make_unique<Wake>(options.wake_fd);
  const uint32_t depth = parts.files->traits().most_in_flight;
  io_uring ring{};
  if (const int failed = make_ring_in_time(ring, std::min(std::bit_ceil(depth), kMostEntries))) {
    throw Error(is_out_of_descriptors(failed) ? ErrorCode::memory : ErrorCode::source,
                uring_refusal(failed));
  }
  parts.queue = std::make_unique<UringQueue>(ring, parts.wake->fd());
  return make_async_engine(std::move(parts));
}

}  // namespace inrush
