// Plain HTTP by recv() into fresh memory and nothing else: what a path to a server on this machine
// gives at most. Usage: recv_loop PORT PATH SIZE CONNECTIONS; prints seconds and CPU seconds.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "fresh_memory.h"

namespace {

// One request for all of [begin, end): its head ends in the block that it came with.
bool fetch(uint16_t port, const std::string& path, char* memory, size_t begin, size_t end) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return false;
  const std::string request = "GET " + path +
                              " HTTP/1.1\r\nHost: x\r\nRange: bytes=" + std::to_string(begin) +
                              "-" + std::to_string(end - 1) + "\r\n\r\n";
  if (send(fd, request.data(), request.size(), 0) < 0) return false;
  char head[4096];
  ssize_t got = recv(fd, head, sizeof head, 0);
  const char* const body = got > 0 ? static_cast<char*>(memmem(head, got, "\r\n\r\n", 4)) : nullptr;
  if (body == nullptr) return false;
  const size_t early = head + got - (body + 4);
  std::memcpy(memory + begin, body + 4, early);
  for (size_t at = begin + early; at < end; at += got) {
    got = recv(fd, memory + at, end - at, 0);
    if (got <= 0) return false;
  }
  close(fd);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const auto port = static_cast<uint16_t>(std::atoi(argv[1]));
  return fill_fresh_memory(std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10),
                           [&](char* memory, size_t begin, size_t end) {
                             return fetch(port, argv[2], memory, begin, end);
                           });
}
