// File descriptors as values that close themselves, and the eventfd that wakes a lane.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <string>
#include <utility>

#include "inrush/core/error.h"

namespace inrush {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { close(); }

  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }

 private:
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  int fd_ = -1;
};

// "read /m/a.safetensors [0, +8): Input/output error", from errno. Where no descriptor was left it
// is no_descriptor(), whatever the code.
Error system_error(ErrorCode code, const std::string& what, int error_number);

// EMFILE or ENFILE: there is no descriptor to be had.
bool is_out_of_descriptors(int error_number);

// Error{memory} for these: what to do about it, and `why` so many are needed.
Error no_descriptor(const std::string& what, int error_number, const std::string& why = "");

// A second, independent descriptor of the same open file (same inode, whatever its name says
// now), with these flags: O_RDONLY | O_DIRECT, say. Returns an empty Fd and sets errno.
Fd reopen(int fd, const std::string& path, int flags);

// Makes room for so many more descriptors at once. The kernel's table grows by doubling, and each
// time, in a process with several threads, whoever needs the room waits until every processor has
// let go of the old table: 10 to 20 ms, which took longer than opening 130 files. Best effort.
void make_room_for_descriptors(size_t count) noexcept;

// A non-blocking eventfd. Throws Error{memory}.
Fd make_eventfd();

// Rings it. Never blocks.
void ring(int event_fd) noexcept;

// Takes all rings off it. Never blocks.
void clear_rings(int event_fd) noexcept;

}  // namespace inrush
