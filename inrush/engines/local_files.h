// The local files that one engine has opened, with the shape that their reads must have: mostly
// on descriptors of the engine's own, of which those used last stay open. A checkpoint may have
// more shards than a process may have files open. open() is the lane's; everything else is for any
// thread.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "inrush/base/direct_io.h"
#include "inrush/base/fd.h"
#include "inrush/base/read_fully.h"
#include "inrush/core/engine.h"

namespace inrush {

struct LocalFile {
  Blob blob;
  FileShape shape;
  uint32_t memory_align = 1;
};

class LocalFiles {
 public:
  // Whose descriptors: a stream of its own for every lane, or the store's, which costs no open.
  enum class Descriptors : uint8_t { own, shared };

  // `engine` names it in errors and traits; reads ask the kernel for `most_at_once` at a time.
  LocalFiles(const char* engine, const EngineOptions& options, uint64_t most_at_once,
             Descriptors descriptors = Descriptors::own);

  // Throws Error{source} with the reason why this engine cannot serve the blob.
  uint32_t open(const Blob& blob);

  // Valid for the life of this object.
  [[nodiscard]] const LocalFile& at(uint32_t file) const;

  // The file's descriptor, open as long as this is held. Throws Error.
  std::shared_ptr<const Fd> descriptor(uint32_t file);

  // The alignments are the strictest of the opened files'.
  [[nodiscard]] const EngineTraits& traits() const { return traits_; }

  // Throws Error{usage} where the reads break what traits() say, or are more than may be added
  // to `in_flight`.
  void check(std::span<const Read> reads, size_t in_flight) const;

  [[nodiscard]] Error error(const Read& read, int error_number, uint64_t arrived = 0) const;

 private:
  void check_shape(const Read& read) const;
  DirectIo open_around_cache(const Blob& blob);
  std::shared_ptr<const Fd> open_buffered(const Blob& blob);
  Fd reopen_making_room(const Blob& blob, int flags);
  void keep_open(uint32_t file, std::shared_ptr<const Fd> fd);
  bool close_all();
  [[nodiscard]] Error refusal(const Blob& blob, const std::string& why) const;

  bool direct_;
  Descriptors whose_;
  std::shared_ptr<Leases> lent_;
  rlim_t limit_;  // of the process's descriptors
  uint64_t most_at_once_;
  EngineTraits traits_;
  mutable std::mutex mutex_;  // over files_ itself: its elements never move
  std::deque<LocalFile> files_;
  std::deque<std::shared_ptr<const Fd>> descriptors_;  // of each; empty where it was closed again
  std::vector<uint32_t> open_;                         // files that have one, the last used last
};

}  // namespace inrush
