// Reads that complete wholly: the one place that resumes short counts, EINTR and EAGAIN and knows
// what direct I/O asks of a resumed read. ReadProgress is the arithmetic alone, for engines that
// submit and reap; read_fully() is the loop around pread() for those that block.
// One thread at a time per read.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "inrush/base/aligned_bytes.h"
#include "inrush/core/engine.h"

namespace inrush {

// What of a file bears on how it is read.
struct FileShape {
  uint64_t size = 0;                   // bytes, as it was indexed
  uint32_t align = 1;                  // of offset and length: 1 through the page cache
  uint64_t most_at_once = 1ULL << 30;  // bytes asked of the kernel in one call; a multiple of align
};

class ReadProgress {
 public:
  struct Part {
    std::byte* target = nullptr;
    uint64_t offset = 0;  // in the file
    uint64_t size = 0;
  };
  enum class State : uint8_t { more, done, failed };

  ReadProgress() = default;
  ReadProgress(const Read& read, const FileShape& shape);

  // What to ask the kernel for now. Its target is valid until the answer was taken.
  Part next();

  // Takes the kernel's answer to the last next(): a count of bytes, or -errno.
  State took(int64_t result);

  // After State::failed: the errno, or 0 where the file ended before `required`.
  [[nodiscard]] int error_number() const { return error_number_; }
  // Bytes that have arrived, from the read's offset on.
  [[nodiscard]] uint64_t arrived() const { return arrived_; }
  // Answers in a row that brought nothing (EINTR, EAGAIN).
  [[nodiscard]] uint32_t stalls() const { return stalls_; }

 private:
  [[nodiscard]] State finish_at_end();

  std::byte* target_ = nullptr;
  uint64_t offset_ = 0;
  uint64_t size_ = 0;
  uint64_t required_ = 0;
  FileShape shape_;
  uint64_t arrived_ = 0;
  uint64_t resumed_at_ = 0;  // where the last part began, from the read's offset
  uint32_t stalls_ = 0;
  int error_number_ = 0;
  // One aligned block for a tail that has no room for a whole one.
  AlignedBytes bounce_;
};

// Blocks until the read is whole; false where it failed (ask `progress` why). With `stop` set
// between two calls of the kernel it fails with ECANCELED.
bool read_fully(int fd, ReadProgress& progress, const std::atomic<bool>* stop = nullptr);

// Reads exactly target.size() bytes from `offset`. Throws Error worded
// "read NAME [offset, +size): why".
void read_fully(int fd, uint64_t offset, std::span<std::byte> target, const std::string& name);

// "read NAME [offset, +size) via VIA: why": data where the file ended too soon (number 0),
// cancelled for ECANCELED, memory for ENOMEM, else source.
Error read_error(const std::string& name, const Read& read, const char* via, int error_number,
                 uint64_t arrived = 0);

}  // namespace inrush
