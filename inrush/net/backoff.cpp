#include "inrush/net/backoff.h"

#include <algorithm>
#include <random>

namespace inrush {
namespace {

constexpr std::chrono::milliseconds kFirst{50};
constexpr std::chrono::milliseconds kLongest{10'000};

}  // namespace

std::optional<Deadline> Backoff::next(Clock::time_point now,
                                      std::optional<std::chrono::milliseconds> asked) {
  const auto longest =
      std::min<std::chrono::milliseconds>(kFirst * (1 << std::min(tries_, 10U)), kLongest);
  ++tries_;
  std::random_device random;
  const auto half = static_cast<uint32_t>(longest.count() / 2);
  auto pause = longest - std::chrono::milliseconds(random() % (half + 1));
  if (asked) pause = std::max(pause, *asked);
  if (now + pause >= deadline_) return std::nullopt;
  return now + pause;
}

}  // namespace inrush
