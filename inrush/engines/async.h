// An engine from a queue in the kernel: what io_uring and Linux AIO have in common. The queue
// moves parts of reads in and answers out; resuming, cancelling and completing are done here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "inrush/base/read_fully.h"
#include "inrush/core/engine.h"
#include "inrush/engines/local_files.h"
#include "inrush/engines/wake.h"

namespace inrush {

struct KernelRead {
  uint32_t id = 0;    // comes back in the answer
  uint32_t file = 0;  // its number in LocalFiles
  int fd = -1;
  ReadProgress::Part part;
};

struct KernelAnswer {
  uint32_t id = 0;
  int64_t result = 0;  // bytes, or -errno
};

// The lane's thread calls everything. Destroyed only when the kernel holds none of its reads.
class KernelQueue {
 public:
  virtual ~KernelQueue() = default;

  // A file was opened: so that it can be registered. Whether it was, and reads of it need no fd.
  virtual bool opened(uint32_t file, int fd) = 0;

  // Hands over the first of these reads and returns how many; the others are offered again. Its
  // answers ring the lane's eventfd.
  virtual size_t push(std::span<const KernelRead> reads) = 0;

  // Takes answers that are there and returns how many. Sends what push() and drop() left unsent;
  // where the kernel is not ready for it, rings the eventfd to be called again.
  virtual size_t reap(std::span<KernelAnswer> answers) = 0;

  // Asks the kernel to drop a read that was handed over, where it can.
  virtual void drop(uint32_t id) = 0;
};

struct AsyncParts {
  std::unique_ptr<LocalFiles> files;
  std::unique_ptr<Wake> wake;
  std::unique_ptr<KernelQueue> queue;
};

std::unique_ptr<Engine> make_async_engine(AsyncParts parts);

}  // namespace inrush
