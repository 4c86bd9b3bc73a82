#include "inrush/base/backing.h"

#include <unistd.h>

#include <chrono>

namespace inrush {
namespace {

constexpr uint64_t kSamples = 4;
constexpr std::chrono::microseconds kSlowTouch{2};  // 0.2 to 0.5 us are usual

bool is_slow_to_touch(int fd, uint64_t offset) {
  char byte = 0;
  const auto before = std::chrono::steady_clock::now();
  static_cast<void>(::pread(fd, &byte, 1, static_cast<off_t>(offset)));
  return std::chrono::steady_clock::now() - before > kSlowTouch;
}

}  // namespace

bool is_unbacked(int fd, uint64_t offset, uint64_t size) {
  uint64_t slow = 0;
  for (uint64_t i = 0; i < kSamples; ++i) {
    if (is_slow_to_touch(fd, offset + size * i / kSamples)) ++slow;
  }
  return slow > kSamples / 2;
}

void touch_pages(int fd, uint64_t offset, uint64_t size) {
  const auto page_size = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  char byte = 0;
  for (uint64_t at = 0; at < size; at += page_size) {
    static_cast<void>(::pread(fd, &byte, 1, static_cast<off_t>(offset + at)));
  }
}

}  // namespace inrush
