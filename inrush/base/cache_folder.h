// Where copies of remote blobs are kept on this machine: one checkpoint's folder, its own or one of
// huggingface_hub's cache. It knows names and what becomes of a copy that is whole; CacheFile fills
// and reads. Any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/core/blob.h"
#include "inrush/core/storage.h"

namespace inrush {

// Of one copy. Names are relative to the folder, or absolute.
struct CopyNames {
  std::string title;   // what its ledger calls it
  std::string bytes;   // while it is filled; sparse
  std::string ledger;  // replaced as a whole
  std::string lock;    // flock: whoever fills it
  std::string whole;   // where it is to be found once it is whole; empty: where it was filled
  std::string digest;  // that it must have then, as ContentDigest names it; empty: any
  mode_t mode = 0600;
};

class CacheFolder {
 public:
  virtual ~CacheFolder() = default;

  [[nodiscard]] virtual int fd() const = 0;
  [[nodiscard]] virtual bool writable() const = 0;

  // Nothing for a blob that cannot be kept.
  [[nodiscard]] virtual std::optional<CopyNames> names(const Blob& blob) const = 0;

  // Before a copy is filled, with its lock held. False where so many bytes do not fit.
  [[nodiscard]] virtual bool prepare(const CopyNames& names, uint64_t missing) const = 0;

  // A copy is there under `whole`: it gets the other names that people look for, as far as it has
  // not got them. What fails of that does no harm.
  virtual void publish(const Blob& blob, const CopyNames& names) const = 0;
};

// A cache of ours, which is made if it is not there. Throws Error{usage} for a folder that others
// could have written to, Error{source} for one that cannot be made. Any thread.
class CacheRoot {
 public:
  // `most`: bytes of the whole cache, 0 for no limit.
  CacheRoot(std::string dir, uint64_t most);

  // DIR/<checkpoint>/, made with `uri`, which has no credentials in it. nullptr where the cache is
  // read-only and has nothing of it. Throws as above.
  [[nodiscard]] std::shared_ptr<CacheFolder> folder_of(const std::string& uri) const;

 private:
  std::string dir_;
  uint64_t most_;
  std::shared_ptr<const Fd> fd_;
};

// Whether copies of different versions of it can be told apart.
bool has_version(const Blob& blob);

// The repository's folder in huggingface_hub's cache. nullptr where there is none to be had.
std::shared_ptr<CacheFolder> open_hub_folder(std::shared_ptr<const HubSnapshot> snapshot);

// The names in a folder, but those that begin with a dot.
std::vector<std::string> names_in(int folder);

// 16 hex digits that stand for a text in names of files.
std::string short_digest(const std::string& text);

}  // namespace inrush
