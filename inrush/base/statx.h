// What statx(2) tells beyond stat(2), asked of the kernel directly: older C libraries lack the
// fields. Any thread.
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

namespace inrush {

// The kernel's struct statx.
class StatxAnswer {
 public:
  // Nothing where the kernel does not tell what the mask asks for.
  static std::optional<StatxAnswer> ask(int fd, unsigned mask) {
    StatxAnswer answer;
    const long failed = ::syscall(SYS_statx, fd, "", AT_EMPTY_PATH, mask, answer.bytes_.data());
    if (failed != 0 || (answer.field<uint32_t>(0) & mask) != mask) return std::nullopt;
    return answer;
  }

  template <typename T>
  [[nodiscard]] T field(size_t at) const {
    T value{};
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }

 private:
  alignas(8) std::array<std::byte, 256> bytes_{};
};

}  // namespace inrush
