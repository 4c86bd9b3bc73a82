// A Store is where bytes live: a directory, an S3 prefix, an HTTP base, Redis, a peer.
// Listing, several shards and identity live here, not in formats or engines.
// list() is for one thread at a time, everything else for any thread: the headers of many shards
// are opened and read concurrently.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/blob.h"

namespace inrush {

class Store {
 public:
  virtual ~Store() = default;

  // The place, as the user named it.
  [[nodiscard]] virtual std::string uri() const = 0;

  // The names of what lies here, as open() takes them, sorted. Not recursive. Throws Error{source}.
  virtual std::vector<std::string> list() = 0;

  // Whether list() sees all that is here; else it gives what it can find, and open() tells.
  [[nodiscard]] virtual bool lists() const { return true; }

  // Opens one entry. Throws Error{source} if it is absent or may not be read.
  virtual Blob open(const std::string& name) = 0;

  // The blob's identity as of now; it differs from blob.identity if the source changed.
  virtual Identity identity(const Blob& blob) = 0;

  // Reads exactly target.size() bytes. For headers; the data path goes through an Engine.
  virtual void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) = 0;
};

}  // namespace inrush
