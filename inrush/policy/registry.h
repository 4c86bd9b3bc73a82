// Processes of one machine that load the same blobs find each other without a daemon: each holds a
// lock on a small file named by the blobs' identity. The kernel drops the lock with the process,
// so a crash leaves nothing that counts.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>

#include "inrush/core/blob.h"

namespace inrush {

struct Neighbours {
  uint32_t loading = 0;          // other processes that load these blobs now
  bool loaded_recently = false;  // some process began to within the last hour
};

class Registration {
 public:
  // Never throws; where no shared folder can be written it registers nothing and sees nobody.
  explicit Registration(std::span<const Blob> blobs);
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  // As of now. Cheap enough to ask every 50 ms.
  [[nodiscard]] Neighbours neighbours() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace inrush
