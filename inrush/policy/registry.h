// Processes of one machine that load the same blobs find each other without a daemon: each holds a
// lock on a small file named by the blobs' identity. The kernel drops the lock with the process,
// so a crash leaves nothing that counts; the next process to look removes the file.
// Only processes of the same user see each other (the folder is private), and only those that
// share /dev/shm or the folder that stands in for it. A forked child does not count, nor does it
// end its parent's registration. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "inrush/core/blob.h"

namespace inrush {

struct Neighbours {
  uint32_t loading = 0;          // other processes that load these blobs now
  bool loaded_recently = false;  // some process began to within the hour before this one
};

class Registration {
 public:
  // Never throws; where no shared folder can be written it registers nothing and sees nobody.
  // An empty `folder` means registry_folder().
  explicit Registration(std::span<const Blob> blobs, const std::string& folder = "");
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  // As of now. Cheap enough to ask every 50 ms.
  [[nodiscard]] Neighbours neighbours() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// This user's folder, made if need be: the first of /dev/shm, XDG_RUNTIME_DIR and /tmp in which
// there can be one that nobody else can write to; empty: none.
std::string registry_folder();

}  // namespace inrush
