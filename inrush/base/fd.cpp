#include "inrush/base/fd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace inrush {

Error system_error(ErrorCode code, const std::string& what, int error_number) {
  if (is_out_of_descriptors(error_number)) return no_descriptor(what, error_number);
  char text[128];
  return {code, fmt::format("{}: {}", what, strerror_r(error_number, text, sizeof text))};
}

bool is_out_of_descriptors(int error_number) {
  return error_number == EMFILE || error_number == ENFILE;
}

Error no_descriptor(const std::string& what, int error_number, const std::string& why) {
  if (error_number == ENFILE) {
    return {ErrorCode::memory,
            fmt::format("{}: the whole machine has as many files open as it may; "
                        "raise fs.file-max (sysctl)",
                        what)};
  }
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return {ErrorCode::memory,
          fmt::format("{}: this process already has as many files open as it may ({}){}; raise the "
                      "limit: ulimit -n {}",
                      what, limit.rlim_cur, why, std::max<rlim_t>(limit.rlim_cur * 4, 4096))};
}

Fd reopen(int fd, const std::string& path, int flags) {
  Fd again(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), flags | O_CLOEXEC));
  if (again || (errno != ENOENT && errno != EACCES)) return again;
  // No /proc, or no permission through it: by name, if that is still the same file.
  again = Fd(::open(path.c_str(), flags | O_CLOEXEC));
  struct stat first {};
  struct stat second {};
  if (again && (::fstat(fd, &first) != 0 || ::fstat(again.get(), &second) != 0 ||
                first.st_ino != second.st_ino || first.st_dev != second.st_dev)) {
    errno = ESTALE;
    return {};
  }
  return again;
}

void make_room_for_descriptors(size_t count) noexcept {
  constexpr size_t kFew = 32;  // what a table mostly has room for
  rlimit limit{};
  if (count < kFew || ::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const Fd lowest(::eventfd(0, EFD_CLOEXEC));
  if (!lowest || limit.rlim_cur == 0) return;
  const auto last = std::min<rlim_t>(static_cast<rlim_t>(lowest.get()) + count, limit.rlim_cur - 1);
  const Fd highest(::fcntl(lowest.get(), F_DUPFD_CLOEXEC, static_cast<int>(last)));
}

Fd make_eventfd() {
  Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) throw system_error(ErrorCode::memory, "create an eventfd", errno);
  return fd;
}

void ring(int event_fd) noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(event_fd, &one, sizeof one);
}

void clear_rings(int event_fd) noexcept {
  uint64_t count = 0;
  [[maybe_unused]] const auto taken = ::read(event_fd, &count, sizeof count);
}

}  // namespace inrush
