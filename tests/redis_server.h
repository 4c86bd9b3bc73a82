// A redis-server of a test's own on a free port of the loopback, ended with the object.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "inrush/wire/redis.h"

namespace inrush::testing {

// A port that nobody listens on now.
inline uint16_t free_port() {
  const Fd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

class RedisServer {
 public:
  explicit RedisServer(std::vector<std::string> options = {}) : port_(free_port()) {
    std::vector<std::string> words{"redis-server", "--port", std::to_string(port_),
                                   "--save",       "",       "--appendonly",
                                   "no",           "--dir",  "/tmp"};
    words.insert(words.end(), options.begin(), options.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    process_ = ::fork();
    if (process_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);
      ::execvp("redis-server", pointers.data());
      ::_exit(127);
    }
  }
  ~RedisServer() { stop(); }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  void stop() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = 0;
  }

  [[nodiscard]] uint16_t port() const { return port_; }
  [[nodiscard]] std::string uri(const std::string& key) const {
    return "redis://127.0.0.1:" + std::to_string(port_) + "/" + key;
  }

  // A connection, once it answers; nothing where there is no redis-server.
  [[nodiscard]] std::unique_ptr<RedisConnection> connect(const std::string& login = "") const {
    const RedisPlace place =
        parse_redis_uri("redis://" + login + "127.0.0.1:" + std::to_string(port_) + "/x");
    for (int i = 0; i < 1000; ++i) {
      if (::waitpid(process_, nullptr, WNOHANG) != 0) return nullptr;
      try {
        return std::make_unique<RedisConnection>(place, "test");
      } catch (const Error&) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
    return nullptr;
  }

 private:
  uint16_t port_;
  pid_t process_ = 0;
};

}  // namespace inrush::testing
