// When to ask again: waits that double, with jitter so that many clients do not come back at once,
// inside a deadline that moves on whenever something arrives. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "inrush/core/engine.h"

namespace inrush {

class Backoff {
 public:
  // `patience`: how long without progress until it is given up.
  explicit Backoff(std::chrono::milliseconds patience)
      : patience_(patience), deadline_(Clock::now() + patience) {}

  // Bytes came: the deadline moves, and waits begin small again.
  void progressed(Clock::time_point now) {
    deadline_ = now + patience_;
    tries_ = 0;
  }

  // Tries of somebody who has not answered yet, and may not exist.
  static constexpr uint32_t kFewTries = 4;

  // When to ask again; nothing once that would be past the deadline. `asked` is the server's wish.
  std::optional<Deadline> next(Clock::time_point now,
                               std::optional<std::chrono::milliseconds> asked);

  [[nodiscard]] Deadline deadline() const { return deadline_; }
  [[nodiscard]] uint32_t tries() const { return tries_; }

 private:
  std::chrono::milliseconds patience_;
  Deadline deadline_;
  uint32_t tries_ = 0;  // since the last progress
};

}  // namespace inrush
