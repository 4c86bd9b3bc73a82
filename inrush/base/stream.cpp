#include "inrush/base/stream.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace inrush {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

[[noreturn]] void refuse(const std::string& why) { throw Error(ErrorCode::source, why); }

std::string text_of(int error_number) {
  std::array<char, 128> text{};
  return ::strerror_r(error_number, text.data(), text.size());
}

Addresses resolve(const Endpoint& endpoint) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const std::string port = std::to_string(endpoint.port);
  const int status = ::getaddrinfo(endpoint.host.c_str(), port.c_str(), &wanted, &list);
  if (status != 0) {
    refuse(fmt::format("host {}: {}", endpoint.host, ::gai_strerror(status)));
  }
  return Addresses(list);
}

// An empty Fd and errno where this address does not answer.
Fd try_address(const addrinfo& address, Deadline deadline) {
  Fd fd(::socket(address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return {};
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd.get(), address.ai_addr, address.ai_addrlen) == 0) return fd;
  if (errno != EINPROGRESS) return {};
  if (!wait_for(fd.get(), POLLOUT, -1, deadline)) {
    errno = ETIMEDOUT;
    return {};
  }
  int error_number = 0;
  socklen_t size = sizeof error_number;
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error_number, &size);
  if (error_number == 0) return fd;
  errno = error_number;
  return {};
}

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL, and a server that hung up would end the
// process by SIGPIPE.
int send_quietly(BIO* bio, const char* bytes, int size) {
  const int fd = static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio)));
  BIO_clear_retry_flags(bio);
  const ssize_t sent = ::send(fd, bytes, static_cast<size_t>(size), MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int receive(BIO* bio, char* bytes, int size) {
  const int fd = static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio)));
  BIO_clear_retry_flags(bio);
  const ssize_t got = ::recv(fd, bytes, static_cast<size_t>(size), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

long control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO* quiet_bio(int fd) {
  static const auto method = [] {
    BIO_METHOD* const made = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "inrush");
    BIO_meth_set_write(made, send_quietly);
    BIO_meth_set_read(made, receive);
    BIO_meth_set_ctrl(made, control);
    return made;
  }();
  BIO* bio = BIO_new(method);
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));  // NOLINT: a number
  BIO_set_init(bio, 1);
  return bio;
}

std::string tls_reason() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "TLS failed" : fmt::format("TLS: {}", reason);
}

}  // namespace

struct Stream::Tls {
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  struct FreeSettings {
    void operator()(SSL_CTX* settings) const { SSL_CTX_free(settings); }
  };
  std::unique_ptr<SSL_CTX, FreeSettings> settings;
  std::unique_ptr<SSL, FreeSsl> ssl;
};

bool wait_for(int fd, short events, int also, Deadline deadline) {
  constexpr std::chrono::milliseconds kLongest = std::chrono::hours(1);
  std::array<pollfd, 2> wanted{{{fd, events, 0}, {also, POLLIN, 0}}};
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const auto slice = std::clamp(left, std::chrono::milliseconds(0), kLongest);
    const int ready = ::poll(wanted.data(), also < 0 ? 1 : 2, static_cast<int>(slice.count()));
    if (ready > 0) return true;
    if (ready == 0 && Clock::now() >= deadline) return false;
    if (ready < 0 && errno != EINTR) return false;
  }
}

Stream::Stream() = default;
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&&) noexcept = default;
Stream::~Stream() = default;

Stream Stream::connect(const Endpoint& endpoint, const std::string& what, Deadline deadline) {
  try {
    Stream stream;
    const Addresses addresses = resolve(endpoint);
    int error_number = 0;
    for (const addrinfo* one = addresses.get(); one != nullptr && !stream.fd_; one = one->ai_next) {
      stream.fd_ = try_address(*one, deadline);
      if (!stream.fd_) error_number = errno;
    }
    if (!stream.fd_) {
      refuse(fmt::format("{} port {}: {}", endpoint.host, endpoint.port, text_of(error_number)));
    }
    if (endpoint.tls) stream.shake_hands(endpoint, deadline);
    return stream;
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", what, error.message()));
  }
}

void Stream::shake_hands(const Endpoint& endpoint, Deadline deadline) {
  tls_ = std::make_unique<Tls>();
  tls_->settings.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* const settings = tls_->settings.get();
  SSL_CTX_set_min_proto_version(settings, TLS1_2_VERSION);
  SSL_CTX_set_verify(settings, SSL_VERIFY_PEER, nullptr);
  if (endpoint.ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(settings);
  } else if (SSL_CTX_load_verify_locations(settings, endpoint.ca_file.c_str(), nullptr) != 1) {
    refuse(fmt::format("CA certificates {}: {}", endpoint.ca_file, tls_reason()));
  }
  tls_->ssl.reset(SSL_new(settings));
  SSL* const ssl = tls_->ssl.get();
  SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  BIO* const bio = quiet_bio(fd_.get());
  SSL_set_bio(ssl, bio, bio);
  X509_VERIFY_PARAM* const rule = SSL_get0_param(ssl);
  if (X509_VERIFY_PARAM_set1_ip_asc(rule, endpoint.host.c_str()) != 1) {
    SSL_set_tlsext_host_name(ssl, endpoint.host.c_str());
    X509_VERIFY_PARAM_set1_host(rule, endpoint.host.c_str(), 0);
  }
  for (;;) {
    ERR_clear_error();
    const int result = SSL_connect(ssl);
    if (result == 1) return;
    const long verdict = SSL_get_verify_result(ssl);
    if (verdict != X509_V_OK) {
      refuse(fmt::format("TLS: the certificate of {} is not trusted: {}", endpoint.host,
                         X509_verify_cert_error_string(verdict)));
    }
    settle(result, errno);
    if (!wait_for(fd_.get(), wants_, -1, deadline)) refuse("TLS: no answer within the deadline");
  }
}

// Bytes moved by a call of OpenSSL; notes what it waits for.
size_t Stream::settle(int result, int error_number) {
  if (result > 0) return static_cast<size_t>(result);
  switch (SSL_get_error(tls_->ssl.get(), result)) {
    case SSL_ERROR_WANT_READ:
      wants_ = POLLIN;
      return 0;
    case SSL_ERROR_WANT_WRITE:
      wants_ = POLLOUT;
      return 0;
    case SSL_ERROR_ZERO_RETURN:
      refuse("the server closed the connection");
    case SSL_ERROR_SYSCALL:
      refuse(error_number == 0 ? "the server closed the connection" : text_of(error_number));
    default:
      refuse(tls_reason());
  }
}

size_t Stream::read(std::span<std::byte> target) {
  if (tls_) {
    ERR_clear_error();
    errno = 0;
    const auto most = static_cast<int>(std::min<size_t>(target.size(), 1U << 30));
    const int got = SSL_read(tls_->ssl.get(), target.data(), most);
    return settle(got, errno);
  }
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), target.data(), target.size(), 0);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) refuse("the server closed the connection");
    wants_ = POLLIN;
    if (errno == EAGAIN) return 0;
    if (errno != EINTR) refuse(text_of(errno));
  }
}

size_t Stream::write(std::span<const std::byte> bytes) {
  if (tls_) {
    ERR_clear_error();
    errno = 0;
    const auto most = static_cast<int>(std::min<size_t>(bytes.size(), 1U << 20));
    const int sent = SSL_write(tls_->ssl.get(), bytes.data(), most);
    return settle(sent, errno);
  }
  for (;;) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<size_t>(sent);
    wants_ = POLLOUT;
    if (errno == EAGAIN) return 0;
    if (errno != EINTR) refuse(text_of(errno));
  }
}

}  // namespace inrush
