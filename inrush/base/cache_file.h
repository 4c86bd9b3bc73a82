// The bytes of one remote blob as far as they are on this machine: a sparse file that is never
// rewritten with other bytes, and a ledger of its blocks that begins with who may believe it. Any
// thread. A block is in the ledger only after it was written. That outlives the process. What
// outlives the machine is only what was sealed: synced to disk, and then said so, in the ledger or
// by the name that only whole copies have.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "inrush/base/block_file.h"
#include "inrush/base/cache_folder.h"
#include "inrush/base/content_digest.h"
#include "inrush/base/fd.h"
#include "inrush/core/engine.h"
#include "inrush/core/ledger.h"

namespace inrush {

class CacheFile {
 public:
  // nullptr where nothing tells the blob's versions apart, or no copy is there or may be made.
  static std::shared_ptr<CacheFile> open(std::shared_ptr<CacheFolder> folder, const Blob& blob);
  ~CacheFile();
  CacheFile(const CacheFile&) = delete;
  CacheFile& operator=(const CacheFile&) = delete;

  [[nodiscard]] bool covers(uint64_t offset, uint64_t size) const;
  [[nodiscard]] uint64_t missing() const;
  [[nodiscard]] std::vector<Interval> gaps() const;

  // Reads what is covered. Throws Error{source}.
  void read(uint64_t offset, std::span<std::byte> target) const;

  // Whether it is whole and known to be on disk.
  [[nodiscard]] bool is_sealed() const {
    const std::lock_guard lock(mutex_);
    return sealed_;
  }

  [[nodiscard]] bool filling() const { return filling_; }  // by this process
  [[nodiscard]] bool filled_elsewhere() const { return elsewhere_; }

  // Keeps bytes that came; `digest` is theirs. Whatever fails only ends the filling. `around`: past
  // the page cache, unless the copy is read again for its digest.
  void fill(uint64_t offset, std::span<const std::byte> bytes, const std::string& digest,
            bool around = false);

  void save_ledger();  // of what was filled since it was written last

  // Sends bytes that were filled on their way to the disk: sealing finds little to wait for then.
  void begin_sync(const Interval& bytes) const;

  // Of a copy that must have a digest: computes it over up to so many more bytes from the start.
  // Whether there may be more to do.
  bool digest_some(uint64_t most);

  // Gives a copy that is whole its name, once its digest is right and it is on disk; a wrong one is
  // removed. Empty, or what is wrong with it. With `most`: only if no more bytes are to be
  // digested for it.
  std::string finish(std::optional<uint64_t> most = std::nullopt);

  // Between these it is filled, unless another process is at it: its lock is held only so long.
  void enter();
  void leave();

  // Waits until nobody is between these, and what has a digest was compared with it; false at the
  // deadline. At once for a copy without a digest.
  bool wait_compared(Deadline deadline);

  [[nodiscard]] bool is_wrong() const {
    const std::lock_guard lock(mutex_);
    return !wrong_.empty();
  }

  // Throws Error{data} where what it brought was found to be other bytes than it must be: the copy
  // is gone then, and whoever was given them may not have been told.
  void demand_right() const;

  // Of the same place came what is wrong: what is here of a copy that must have a digest, and is
  // not whole, would make it wrong too. It is removed where this process fills it.
  void doubt();

  // Takes up what another process has filled since, or its place if it is gone. Whether anything
  // is new.
  bool refresh();

  // A descriptor of the bytes for reading, -1 where there is none.
  [[nodiscard]] int fd() const { return bytes_.get(); }

 private:
  CacheFile(std::shared_ptr<CacheFolder> folder, const Blob& blob, CopyNames names);
  bool begin_filling();
  bool take_lock();
  [[nodiscard]] bool is_locked_out() const;
  bool open_whole();
  void discard();
  void digest_next(uint64_t size);
  bool open_for_reading();
  bool adopt(Fd fd);
  bool reload();
  void save(bool sealed);
  void stop_filling() {
    filling_ = false;
    refused_ = true;
  }

  std::shared_ptr<CacheFolder> folder_;
  Blob blob_;  // without its handle
  CopyNames names_;
  Identity identity_;
  Fd bytes_;  // for reading; once there it stays, because reads go on under no lock
  std::unique_ptr<BlockFile> writing_;  // there from when this process fills it
  Fd lock_;
  std::atomic<bool> filling_{false};
  std::atomic<bool> elsewhere_{false};

  mutable std::mutex mutex_;
  Ledger ledger_;
  bool sealed_ = false;
  bool refused_ = false;               // there is no room for it, or no more to be done
  std::pair<uint64_t, int64_t> seen_;  // inode and time of the ledger that was read last
  uint64_t unsaved_ = 0;
  uint32_t users_ = 0;            // between enter() and leave()
  std::condition_variable left_;  // nobody is
  std::string wrong_;             // what was found to be wrong with it
  uint32_t writers_ = 0;          // that write a block now
  Clock::time_point saved_{};

  std::mutex digest_mutex_;  // over what follows; taken before mutex_
  std::unique_ptr<ContentDigest> digest_;
  uint64_t digested_ = 0;  // bytes, from the start
};

// What the handle of a blob of the "cache" engine points to.
struct CachedBlob {
  Blob inner;
  std::shared_ptr<CacheFile> file;  // nullptr: it is not kept
};

}  // namespace inrush
