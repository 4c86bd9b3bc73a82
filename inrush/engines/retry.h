// An engine that asks again where its inner engine failed with Error{source}: a reset connection,
// a stale handle, an EIO that goes away. Wrong data and cancellation are never retried.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "inrush/engines/layered.h"

namespace inrush {

struct RetryOptions {
  uint32_t most = 3;                         // repetitions of one read
  std::chrono::milliseconds first_pause{5};  // doubles with each repetition
  std::chrono::milliseconds longest_pause{2000};
};

class RetryEngine final : public LayeredEngine {
 public:
  RetryEngine(std::unique_ptr<Engine> inner, const RetryOptions& options);

  // Repetitions so far. Any thread.
  [[nodiscard]] uint64_t retries() const { return retries_; }

 private:
  void landed(Flight& flight, std::optional<Error> error) override;

  RetryOptions options_;
  std::atomic<uint64_t> retries_{0};
};

}  // namespace inrush
