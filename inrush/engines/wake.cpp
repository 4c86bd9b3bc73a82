#include "inrush/engines/wake.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

namespace inrush {

namespace {

Fd duplicate(int fd) {
  Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) throw system_error(ErrorCode::memory, "duplicate a lane's eventfd", errno);
  return copy;
}

}  // namespace

Wake::Wake(int wake_fd) : fd_(wake_fd < 0 ? make_eventfd() : duplicate(wake_fd)) {}

bool Wake::take() const noexcept {
  uint64_t count = 0;
  return ::read(fd_.get(), &count, sizeof count) > 0;
}

bool Wake::sleep(Deadline deadline) const noexcept {
  constexpr std::chrono::nanoseconds kLongest = std::chrono::hours(1);
  pollfd wanted{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    const auto now = Clock::now();
    if (deadline <= now) return ::poll(&wanted, 1, 0) > 0;
    const auto left = std::min<std::chrono::nanoseconds>(deadline - now, kLongest);
    const timespec timeout{.tv_sec = left.count() / 1'000'000'000,
                           .tv_nsec = left.count() % 1'000'000'000};
    const int ready = ::ppoll(&wanted, 1, &timeout, nullptr);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

}  // namespace inrush
