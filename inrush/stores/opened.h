// Blobs by name, each opened once: on a remote place opening is a round trip, and formats open a
// file to see what it is, and again to read it. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "inrush/core/blob.h"

namespace inrush {

class OpenedBlobs {
 public:
  // The blob of that name, from open() where it is not known. Throws what that throws.
  template <typename Open>
  Blob get(const std::string& name, Open open) {
    {
      const std::lock_guard lock(mutex_);
      const auto known = blobs_.find(name);
      if (known != blobs_.end()) return known->second;
    }
    Blob blob = open();
    const std::lock_guard lock(mutex_);
    return blobs_.emplace(name, std::move(blob)).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, Blob> blobs_;
};

}  // namespace inrush
