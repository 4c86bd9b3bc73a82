// FreshMemory: huge pages for memory that is about to be written, where the host may have taken
// back what was free. The first one of each call is touched, and while those are slow none are
// asked for. 512 MiB of direct reads took 0.28 s into huge pages that another process had just left
// (fewer places for a device to write to), 0.43 s into small ones; 6 s later 0.65 s into huge,
// 0.42 s into small ones. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace inrush {

class FreshMemory {
 public:
  // Asks for huge pages where whole ones fit. Best effort; keeps what is there.
  void advise(void* data, size_t size);

 private:
  using Clock = std::chrono::steady_clock;

  void was_slow();

  std::atomic<uint32_t> slow_{0};  // touches, one after the other
  std::atomic<Clock::rep> paused_until_{0};
};

}  // namespace inrush
