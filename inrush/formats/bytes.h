// Little-endian fields of binary headers, read front to back. A value; never past its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace inrush {

// What is wrong and where: bytes from the first. Callers turn it into an Error that names the file.
struct BytesFault {
  uint64_t offset = 0;
  std::string reason;
};

class Bytes {
 public:
  explicit Bytes(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] uint64_t offset() const { return offset_; }
  [[nodiscard]] uint64_t left() const { return bytes_.size() - offset_; }

  // The next `size` bytes. Throws BytesFault if there are fewer.
  std::span<const std::byte> take(uint64_t size) {
    if (size > left()) throw BytesFault{offset_, "it is cut off"};
    offset_ += size;
    return bytes_.subspan(offset_ - size, size);
  }
  std::string_view text(uint64_t size) {
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  template <typename T>
  T number() {
    uint64_t value = 0;
    const auto bytes = take(sizeof(T));
    for (size_t i = sizeof(T); i-- > 0;) value = value << 8 | static_cast<uint64_t>(bytes[i]);
    return static_cast<T>(value);
  }
  [[noreturn]] void fail(std::string reason) const { throw BytesFault{offset_, std::move(reason)}; }

 private:
  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
};

}  // namespace inrush
