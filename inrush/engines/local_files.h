// The local files that one engine has opened: each on a descriptor of the engine's own, with the
// shape its reads must have. open() is the lane's; everything else is for any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <span>

#include "inrush/base/fd.h"
#include "inrush/base/read_fully.h"
#include "inrush/core/engine.h"

namespace inrush {

struct LocalFile {
  Blob blob;
  Fd fd;
  FileShape shape;
  uint32_t memory_align = 1;
};

class LocalFiles {
 public:
  // `engine` names it in errors and traits; reads ask the kernel for `most_at_once` at a time.
  LocalFiles(const char* engine, const EngineOptions& options, uint64_t most_at_once);

  // Throws Error{source} with the reason why this engine cannot serve the blob.
  uint32_t open(const Blob& blob);

  // Valid for the life of this object.
  [[nodiscard]] const LocalFile& at(uint32_t file) const;

  // The alignments are the strictest of the opened files'.
  [[nodiscard]] const EngineTraits& traits() const { return traits_; }

  // Throws Error{usage} where the reads break what traits() say, or are more than may be added
  // to `in_flight`.
  void check(std::span<const Read> reads, size_t in_flight) const;

  [[nodiscard]] Error error(const Read& read, int error_number, uint64_t arrived = 0) const;

 private:
  void check_shape(const Read& read) const;

  bool direct_;
  uint64_t most_at_once_;
  EngineTraits traits_;
  mutable std::mutex mutex_;  // over files_ itself: its elements never move
  std::deque<LocalFile> files_;
};

}  // namespace inrush
