// A Blob is an open file, object, key or region of a peer, as its Store opened it.
// A value: copies share the handle, and the handle closes with the last of them. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace inrush {

// What must not change between the first and the last byte of a load.
struct Identity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  std::string etag{};  // or generation, where the store has one

  bool operator==(const Identity&) const = default;
};

// Whether these are of the same bytes. ctime alone changes with a file's mode, owner, links and
// name.
inline bool same_bytes(const Identity& one, Identity other) {
  other.ctime_ns = one.ctime_ns;
  return one == other;
}

struct Blob {
  std::string name;  // as errors show it: a path or a URI
  uint64_t size = 0;
  Identity identity;
  int fd = -1;                         // a readable descriptor where the blob is a local file
  std::shared_ptr<const void> handle;  // keeps fd, or what the store needs, open
  // Of a remote blob, which has no fd: the row of the table of engines that reads it (and knows
  // what its handle is), and what the path to it is known by in the profile. Empty for local files.
  std::string engine{};  // "http"
  std::string path{};    // "https://host:8443": never a credential
  // What tells its content from others of the same name: the query of a URL, the endpoint of a
  // bucket. For names of copies, through a digest: not to be shown.
  std::string apart{};
  // Put together from keys that hold what an index names: nothing stands behind the last tensor.
  bool pieced = false;
};

}  // namespace inrush
