#include "inrush/net/attempts.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "inrush/base/random.h"

namespace inrush {
namespace {

constexpr std::chrono::milliseconds kFirst{50};
constexpr std::chrono::milliseconds kLongest{10'000};
constexpr int kMostRedirects = 10;
constexpr int kMostReturns = 8;    // what home leads to may expire while it waits for a connection
constexpr uint32_t kFewTries = 4;  // of somebody who has never answered, and may not exist

}  // namespace

Attempts::Attempts(std::string what, Url home, std::chrono::milliseconds patience)
    : what_(std::move(what)),
      home_(std::move(home)),
      url_(home_),
      patience_(patience),
      deadline_(Clock::now() + patience) {}

void Attempts::begin_at(const Url& there) {
  url_ = there;
  known_ = true;
  expiring_ = there.text() != home_.text();
}

void Attempts::progressed(Clock::time_point now) {
  deadline_ = now + patience_;
  tries_ = 0;
  redirects_ = 0;
  returns_ = 0;
}

Deadline Attempts::next(const Verdict& verdict, Clock::time_point now) {
  switch (verdict.kind) {
    case Verdict::Kind::redirect:
      if (++redirects_ > kMostRedirects) give_up(verdict, "it is redirected in circles");
      url_ = verdict.location;
      expiring_ = url_.text() != home_.text();
      return now;
    case Verdict::Kind::again:
      return pause(verdict, now);
    default:
      if (!std::exchange(expiring_, false) || ++returns_ > kMostReturns) {
        give_up(verdict, verdict.reason);
      }
      url_ = home_;
      return now;
  }
}

Deadline Attempts::pause(const Verdict& verdict, Clock::time_point now) {
  if (verdict.nobody_there && !known_ && tries_ >= kFewTries) give_up(verdict, verdict.reason);
  const auto longest =
      std::min<std::chrono::milliseconds>(kFirst * (1 << std::min(tries_, 10U)), kLongest);
  ++tries_;
  const auto half = static_cast<uint32_t>(longest.count() / 2);
  auto pause = longest - std::chrono::milliseconds(random_bits() % (half + 1));
  if (verdict.pause) pause = std::max(pause, *verdict.pause);
  if (now + pause >= deadline_) give_up(verdict, verdict.reason);
  return now + pause;
}

void Attempts::wait(const Verdict& verdict) {
  std::this_thread::sleep_until(next(verdict, Clock::now()));
}

void Attempts::give_up(const Verdict& verdict, const std::string& reason) const {
  const std::string tries = tries_ > 1 ? fmt::format(" (after {} tries)", tries_) : "";
  const std::string text = fmt::format("{}: {}{}", what_, reason, tries);
  if (verdict.no_parts) throw NoParts(verdict.code, text);
  throw Error(verdict.code, text);
}

}  // namespace inrush
