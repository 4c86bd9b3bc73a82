// The lane's eventfd as an engine uses it: a descriptor of its own for the same eventfd, so that a
// thread that outlives the lane never rings a number that means another file by then.
// ring() from any thread, the rest from the lane's.
#pragma once

#include "inrush/base/fd.h"
#include "inrush/core/engine.h"

namespace inrush {

class Wake {
 public:
  // Of EngineOptions::wake_fd; below 0 a new eventfd is made. Throws Error{memory}.
  explicit Wake(int wake_fd);

  [[nodiscard]] int fd() const { return fd_.get(); }
  void ring() const noexcept { inrush::ring(fd_.get()); }

  // Takes the rings off; whether there were any.
  bool take() const noexcept;

  // Sleeps until it is rung (true; the ring stays) or the deadline passed (false).
  bool sleep(Deadline deadline) const noexcept;

 private:
  Fd fd_;
};

}  // namespace inrush
