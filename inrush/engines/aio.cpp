// Linux AIO by its raw system calls: for kernels and sandboxes that refuse io_uring. Only direct
// reads are asynchronous: through the page cache io_submit() itself reads, so those are handed
// over one at a time, and between two of them the lane sees a cancel.
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/base/thread.h"
#include "inrush/engines/async.h"
#include "inrush/engines/rows.h"

namespace inrush {

namespace {

constexpr uint64_t kMostAtOnceDirect = kGiB;
constexpr uint64_t kMostAtOnceBuffered = 8 * kMiB;  // for so long the lane's thread is away

// 0 or errno.
int make_kernel_queue(uint32_t entries, aio_context_t& kernel_queue) {
  kernel_queue = 0;
  return ::syscall(SYS_io_setup, entries, &kernel_queue) == 0 ? 0 : errno;
}

// io_destroy() takes 30 to 40 ms, because it waits for RCU: not on the lane's thread.
void destroy(aio_context_t kernel_queue) {
  const auto call = [kernel_queue] { ::syscall(SYS_io_destroy, kernel_queue); };
  try {
    start_thread("ends a queue", call).detach();
  } catch (const Error&) {
    // No thread to be had: the queue goes with the process.
  }
}

std::string refusal(int error_number) {
  const std::string why = system_error(ErrorCode::source, "Linux AIO", error_number).message();
  if (error_number == ENOSYS) return why + " (this kernel or sandbox has no Linux AIO)";
  if (error_number == EAGAIN) return why + " (raise sysctl fs.aio-max-nr)";
  return why;
}

class AioQueue final : public KernelQueue {
 public:
  AioQueue(aio_context_t kernel_queue, uint32_t depth, int wake_fd, bool direct)
      : kernel_queue_(kernel_queue), wake_fd_(wake_fd), direct_(direct), blocks_(depth) {}
  ~AioQueue() override { destroy(kernel_queue_); }

  bool opened(uint32_t, int) override { return false; }
  size_t push(std::span<const KernelRead> reads) override;
  size_t reap(std::span<KernelAnswer> answers) override;
  void drop(uint32_t) override {}  // no filesystem lets io_cancel() do so

 private:
  void prepare(const KernelRead& read);

  aio_context_t kernel_queue_;
  int wake_fd_;
  bool direct_;
  size_t in_kernel_ = 0;
  std::vector<iocb> blocks_;  // by the read's id
  std::vector<iocb*> offered_;
  std::vector<KernelAnswer> refused_;
};

void AioQueue::prepare(const KernelRead& read) {
  iocb& block = blocks_[read.id];
  block = {};
  block.aio_data = read.id;
  block.aio_lio_opcode = IOCB_CMD_PREAD;
  block.aio_fildes = static_cast<uint32_t>(read.fd);
  block.aio_buf = reinterpret_cast<uintptr_t>(read.part.target);
  block.aio_nbytes = read.part.size;
  block.aio_offset = static_cast<int64_t>(read.part.offset);
  block.aio_flags = IOCB_FLAG_RESFD;
  block.aio_resfd = static_cast<uint32_t>(wake_fd_);
  offered_.push_back(&block);
}

size_t AioQueue::push(std::span<const KernelRead> reads) {
  offered_.clear();
  for (const KernelRead& read : direct_ ? reads : reads.first(1)) prepare(read);
  size_t done = 0;
  while (done < offered_.size()) {
    const long count =
        ::syscall(SYS_io_submit, kernel_queue_, offered_.size() - done, offered_.data() + done);
    if (count > 0) {
      in_kernel_ += static_cast<size_t>(count);
      done += static_cast<size_t>(count);
    } else if (errno == EAGAIN || errno == EINTR) {
      break;
    } else {
      // The first of them is refused; those behind it were not looked at.
      refused_.push_back({.id = reads[done].id, .result = -errno});
      ring(wake_fd_);
      ++done;
    }
  }
  return done;
}

size_t AioQueue::reap(std::span<KernelAnswer> answers) {
  size_t count = std::min(answers.size(), refused_.size());
  std::copy_n(refused_.end() - static_cast<ptrdiff_t>(count), count, answers.begin());
  refused_.resize(refused_.size() - count);
  io_event events[64];
  const auto room = std::min(answers.size() - count, std::size(events));
  timespec at_once{};
  const long there =
      in_kernel_ == 0 ? 0 : ::syscall(SYS_io_getevents, kernel_queue_, 0, room, events, &at_once);
  for (long i = 0; i < there; ++i) {
    answers[count++] = {.id = static_cast<uint32_t>(events[i].data), .result = events[i].res};
    --in_kernel_;
  }
  return count;
}

}  // namespace

std::string aio_unusable() {
  // A queue of no events: cheaper than one of some. EINVAL says that the call is there.
  aio_context_t none = 0;
  const long made = ::syscall(SYS_io_setup, 0U, &none);
  return made == 0 || errno == EINVAL ? "" : refusal(errno);
}

std::unique_ptr<Engine> make_aio(const EngineOptions& options) {
  AsyncParts parts;
  parts.files = std::make_unique<LocalFiles>(
      "aio", options, options.direct ? kMostAtOnceDirect : kMostAtOnceBuffered);
  parts.wake = std::make_unique<Wake>(options.wake_fd);
  const uint32_t depth = parts.files->traits().most_in_flight;
  aio_context_t kernel_queue = 0;
  if (const int failed = make_kernel_queue(depth, kernel_queue)) {
    throw Error(ErrorCode::source, refusal(failed));
  }
  parts.queue = std::make_unique<AioQueue>(kernel_queue, depth, parts.wake->fd(), options.direct);
  return make_async_engine(std::move(parts));
}

}  // namespace inrush
