// The bytes of one remote blob as far as they are on this machine. Any thread.
//   DIR/<checkpoint>/uri                        what it is a copy of; its time is when it was used
//   DIR/<checkpoint>/<name>-<version>.bytes     sparse; never rewritten with other bytes
//   DIR/<checkpoint>/<name>-<version>.ledger    replaced as a whole; begins with who may believe it
//   DIR/<checkpoint>/<name>-<version>.lock      flock: whoever fills it
// A block is in the ledger only after it was written. That outlives the process. What outlives the
// machine is only what was sealed: synced to disk, and then said so in the ledger.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/core/engine.h"
#include "inrush/core/ledger.h"

namespace inrush {

// A checkpoint's folder in the cache.
class CacheFolder {
 public:
  // `uri` without credentials. nullptr where the cache is read-only and has nothing of it. Throws
  // Error{usage} for a folder that others could have written to, Error{source} for one that cannot
  // be made. `most`: bytes of the whole cache, 0 for no limit.
  static std::shared_ptr<CacheFolder> open(const std::string& dir, const std::string& uri,
                                           uint64_t most);

  [[nodiscard]] int fd() const { return folder_.get(); }
  [[nodiscard]] bool writable() const { return writable_; }

  // Removes checkpoints that were not used for longest and that nobody fills, until so many bytes
  // more fit; false where they do not.
  [[nodiscard]] bool make_room(uint64_t bytes) const;

 private:
  Fd root_;
  Fd folder_;
  std::string key_;
  bool writable_ = false;
  uint64_t most_ = 0;
};

// The names in a folder, but those that begin with a dot.
std::vector<std::string> names_in(int folder);

class CacheFile {
 public:
  // nullptr where nothing tells the blob's versions apart, or there is no copy and none may be
  // made.
  static std::shared_ptr<CacheFile> open(std::shared_ptr<CacheFolder> folder, const Blob& blob);
  ~CacheFile();
  CacheFile(const CacheFile&) = delete;
  CacheFile& operator=(const CacheFile&) = delete;

  [[nodiscard]] bool covers(uint64_t offset, uint64_t size) const;
  [[nodiscard]] uint64_t missing() const;
  [[nodiscard]] std::vector<Interval> gaps() const;

  // Reads what is covered. Throws Error{source}.
  void read(uint64_t offset, std::span<std::byte> target) const;

  // Whether this process fills it, or another one does.
  [[nodiscard]] bool filling() const { return filling_; }
  [[nodiscard]] bool filled_elsewhere() const { return elsewhere_; }

  // Keeps bytes that came; `digest` is theirs. Whatever fails only ends the filling.
  void fill(uint64_t offset, std::span<const std::byte> bytes, const std::string& digest);

  // Says on disk all that is there by now.
  void settle();

  // Takes up what another process has filled since, or its place if it is gone. Whether anything
  // is new.
  bool refresh();

  // A descriptor of the bytes for reading, -1 where there is none.
  [[nodiscard]] int fd() const { return bytes_.get(); }

 private:
  CacheFile(std::shared_ptr<CacheFolder> folder, const Blob& blob);
  bool begin_filling();
  bool open_for_reading();
  bool reload();
  void save(bool sealed);
  void stop_filling() { filling_ = false; }
  void remove_old_versions() const;

  std::shared_ptr<CacheFolder> folder_;
  std::string name_;
  Identity identity_;
  std::string base_;  // of the names of its files
  Fd bytes_;          // for reading; once there it stays, because reads go on under no lock
  Fd writing_;        // there from when this process fills it
  Fd lock_;
  std::atomic<bool> filling_{false};
  std::atomic<bool> elsewhere_{false};

  mutable std::mutex mutex_;
  Ledger ledger_;
  bool sealed_ = false;
  bool refused_ = false;               // there is no room for it
  std::pair<uint64_t, int64_t> seen_;  // inode and time of the ledger that was read last
  uint64_t unsaved_ = 0;
  Clock::time_point saved_{};
};

// What the handle of a blob of the "cache" engine points to.
struct CachedBlob {
  Blob inner;
  std::shared_ptr<CacheFile> file;  // nullptr: it is not kept
};

}  // namespace inrush
