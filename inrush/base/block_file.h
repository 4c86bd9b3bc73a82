// A file that large blocks are written to, in any order: around the page cache where that is asked
// for and can be, else through it. Any thread; no two may write the same bytes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "inrush/base/fd.h"

namespace inrush {

class BlockFile {
 public:
  // `fd`: open for writing.
  explicit BlockFile(Fd fd) : fd_(std::move(fd)) {}

  // 0, or an errno. `around`: what can be of it goes from this memory to the disk; that is the
  // whole pages of a block that lies in memory as it lies in the file.
  int write(uint64_t offset, std::span<const std::byte> bytes, bool around);

  // Sends bytes that were written on their way to the disk, so that sync() finds little to do.
  void begin_sync(uint64_t offset, uint64_t size) const;

  // Waits until all that was written is on disk, with what finds it there. 0, or an errno.
  [[nodiscard]] int sync() const;

  // Bytes that were written around the page cache.
  [[nodiscard]] uint64_t around() const { return around_; }

 private:
  int write_through(uint64_t offset, std::span<const std::byte> bytes);
  bool write_around(uint64_t offset, std::span<const std::byte> bytes);

  const Fd fd_;
  std::mutex mutex_;  // while something is written through the page cache
  std::once_flag reopened_;
  Fd direct_;
  std::atomic<bool> refused_{false};
  std::atomic<uint64_t> around_{0};
};

}  // namespace inrush
