// A small HTTP server of a test's own, on a free port of the loopback: contents by path, in parts,
// with ETags, on kept connections. Ended with the object.
#pragma once

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <list>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "inrush/base/fd.h"

namespace inrush::testing {

class HttpServer {
 public:
  HttpServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_.get(), any, size) != 0 || ::listen(listener_.get(), 256) != 0 ||
        ::getsockname(listener_.get(), any, &size) != 0) {
      throw std::runtime_error("no HTTP server");
    }
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    accepting_ = std::thread([this] { accept_all(); });
  }

  ~HttpServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    accepting_.join();
    {
      const std::lock_guard lock(mutex_);
      for (Connection& one : connections_) {
        if (one.fd) ::shutdown(one.fd.get(), SHUT_RDWR);
      }
    }
    for (Connection& one : connections_) one.thread.join();
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Serves it under that name; returns its URL.
  std::string put(const std::string& name, std::vector<std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    contents_.insert_or_assign(name, std::move(bytes));
    return url_ + name;
  }

 private:
  struct Connection {
    Fd fd;
    std::thread thread{};
  };

  void accept_all() {
    for (;;) {
      Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      // Else the body waits 40 ms behind the head, for an acknowledgement that is held back.
      const int yes = 1;
      ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
      const std::lock_guard lock(mutex_);
      Connection& one = connections_.emplace_back(Connection{std::move(fd)});
      one.thread = std::thread([this, &one, number = one.fd.get()] {
        serve(number);
        const std::lock_guard closing(mutex_);
        one.fd = Fd();
      });
    }
  }

  void serve(int fd) {
    std::string received;
    for (;;) {
      const size_t end = received.find("\r\n\r\n");
      if (end != std::string::npos) {
        if (!answer(fd, received.substr(0, end + 2))) break;
        received.erase(0, end + 4);
        continue;
      }
      char block[4096];
      const ssize_t count = ::recv(fd, block, sizeof block, 0);
      if (count <= 0) break;
      received.append(block, static_cast<size_t>(count));
    }
  }

  static bool send_all(int fd, const char* data, size_t size) {
    while (size > 0) {
      const ssize_t count = ::send(fd, data, size, MSG_NOSIGNAL);
      if (count <= 0) return false;
      data += count;
      size -= static_cast<size_t>(count);
    }
    return true;
  }

  bool answer(int fd, const std::string& request) {
    const size_t slash = request.find('/');
    const std::string name = request.substr(slash + 1, request.find(' ', slash) - slash - 1);
    const std::vector<std::byte>* content = nullptr;
    {
      const std::lock_guard lock(mutex_);
      const auto found = contents_.find(name);
      if (found != contents_.end()) content = &found->second;
    }
    const size_t range = request.find("Range: bytes=");
    if (content == nullptr || range == std::string::npos) {
      const std::string_view refusal = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
      return send_all(fd, refusal.data(), refusal.size());
    }
    uint64_t first = 0;
    uint64_t last = 0;
    const char* const stop = request.data() + request.size();
    const char* const dash = std::from_chars(request.data() + range + 13, stop, first).ptr;
    std::from_chars(dash + 1, stop, last);
    last = std::min<uint64_t>(last, content->size() - 1);
    const std::string head = "HTTP/1.1 206 Partial Content\r\nETag: \"one\"\r\nContent-Length: " +
                             std::to_string(last - first + 1) + "\r\nContent-Range: bytes " +
                             std::to_string(first) + "-" + std::to_string(last) + "/" +
                             std::to_string(content->size()) + "\r\n\r\n";
    const auto* const data = reinterpret_cast<const char*>(content->data());
    return send_all(fd, head.data(), head.size()) && send_all(fd, data + first, last - first + 1);
  }

  Fd listener_;
  std::string url_;
  std::thread accepting_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::byte>> contents_;  // never replaced while it is served
  std::list<Connection> connections_;
};

}  // namespace inrush::testing
