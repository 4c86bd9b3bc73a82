#include "inrush/engines/retry.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace inrush {

RetryEngine::RetryEngine(std::unique_ptr<Engine> inner, const RetryOptions& options)
    : LayeredEngine(std::move(inner)), options_(options) {}

void RetryEngine::landed(Flight& flight, std::optional<Error> error) {
  const auto now = Clock::now();
  if (!error || error->code() != ErrorCode::source) {
    return answer(flight, std::move(error), now);
  }
  if (cancelled()) {
    return answer(flight, Error(ErrorCode::cancelled, error->message() + " (and cancelled)"), now);
  }
  const uint32_t repetitions = flight.tries - 1;
  if (repetitions >= options_.most) {
    if (repetitions > 0) {
      error =
          Error(error->code(), fmt::format("{} (after {} tries)", error->message(), flight.tries));
    }
    return answer(flight, std::move(error), now);
  }
  ++retries_;
  ++flight.retries;
  const auto pause = options_.first_pause * (1U << std::min(repetitions, 16U));
  again(flight, flight.part,
        now + std::min<std::chrono::milliseconds>(pause, options_.longest_pause));
}

}  // namespace inrush
