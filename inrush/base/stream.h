// A connection to a server: TCP, or TLS over it. One thread at a time. Nothing blocks but
// connect(), which has a deadline; poll the descriptor for what wants() says. It closes with the
// object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "inrush/base/fd.h"
#include "inrush/core/engine.h"

namespace inrush {

struct Endpoint {
  std::string host;  // a name, or an address without brackets
  uint16_t port = 0;
  bool tls = false;     // the server's certificate must be good for `host`
  std::string ca_file;  // PEM; empty: the roots of this machine
};

class Stream {
 public:
  // Throws Error{source}: the host has no address, refuses, does not answer, or is not trusted.
  // `what` begins its text: "open redis://host/key".
  static Stream connect(const Endpoint& endpoint, const std::string& what, Deadline deadline);

  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;
  ~Stream();

  // Bytes moved, 0 where it would block. Throws Error{source} with the bare reason: the other side
  // hung up, the connection was reset.
  size_t read(std::span<std::byte> target);
  size_t write(std::span<const std::byte> bytes);

  [[nodiscard]] int fd() const { return fd_.get(); }
  // What to poll for after read() or write() gave 0: POLLIN, POLLOUT.
  [[nodiscard]] short wants() const { return wants_; }

 private:
  struct Tls;
  Stream();
  void shake_hands(const Endpoint& endpoint, Deadline deadline);
  size_t settle(int result, int error_number);

  Fd fd_;
  std::unique_ptr<Tls> tls_;
  short wants_ = 0;
};

// Sleeps until one of these events is there (true) or the deadline passed. `also` (an eventfd, or
// -1) ends the sleep too.
bool wait_for(int fd, short events, int also, Deadline deadline);

}  // namespace inrush
