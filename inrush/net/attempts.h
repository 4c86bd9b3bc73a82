// What follows from an answer that was not the wanted one: where to ask next and when, or an error.
// Waits double, with jitter so that many clients do not come back at once, inside a deadline that
// moves on whenever something arrives. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "inrush/core/engine.h"
#include "inrush/net/transfer.h"

namespace inrush {

class Attempts {
 public:
  // `what` begins the errors, `home` is asked first; `patience`: how long without progress until
  // it is given up.
  Attempts(std::string what, Url home, std::chrono::milliseconds patience);

  // Of a content that was there once: `there` is asked first, and home if that has expired. A host
  // that is not to be found now may come back.
  void begin_at(const Url& there);

  // Bytes came: the deadline moves, and waits begin small again.
  void progressed(Clock::time_point now);

  // Nobody listened for so long: what came then is not known yet, and that is not the server's
  // fault.
  void pardon(Clock::duration time) { deadline_ += time; }

  // Takes in a verdict that is not `done`: when to ask again, at url(). Throws Error where that is
  // of no use, or too late.
  Deadline next(const Verdict& verdict, Clock::time_point now);

  // The same, for those who wait here.
  void wait(const Verdict& verdict);

  [[nodiscard]] const std::string& what() const { return what_; }
  [[nodiscard]] const Url& url() const { return url_; }
  [[nodiscard]] bool redirected() const { return url_.text() != home_.text(); }
  [[nodiscard]] Deadline deadline() const { return deadline_; }
  [[nodiscard]] uint32_t tries() const { return tries_; }

 private:
  Deadline pause(const Verdict& verdict, Clock::time_point now);
  [[noreturn]] void give_up(const Verdict& verdict, const std::string& reason) const;

  std::string what_;
  Url home_;
  Url url_;
  std::chrono::milliseconds patience_;
  Deadline deadline_;
  uint32_t tries_ = 0;     // since the last progress
  int redirects_ = 0;      // since the last progress
  int returns_ = 0;        // home, likewise
  bool known_ = false;     // it has answered before
  bool expiring_ = false;  // url() is where home led to; it may be asked again
};

}  // namespace inrush
