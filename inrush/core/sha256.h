// SHA-256 of bytes and numbers, numbers as little-endian words of 64 bits. A value; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace inrush {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void add(std::string_view bytes);
  void add(uint64_t number);

  // 64 hex digits. Nothing may be added after it.
  [[nodiscard]] std::string finish();

 private:
  struct State;
  void flush();

  std::unique_ptr<State> state_;
  std::vector<unsigned char> pending_;  // numbers not yet hashed: one call for many of them
  size_t used_ = 0;
};

}  // namespace inrush
