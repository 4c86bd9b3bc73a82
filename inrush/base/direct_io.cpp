#include "inrush/base/direct_io.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "inrush/base/aligned_bytes.h"
#include "inrush/base/read_fully.h"
#include "inrush/base/statx.h"

namespace inrush {

namespace {

// Since Linux 6.1: two numbers that follow stx_mnt_id in the kernel's struct, 152 bytes in.
constexpr unsigned kStatxDirectAlign = 0x2000;
constexpr size_t kMemoryAlignAt = 152;
constexpr size_t kOffsetAlignAt = 156;

// True if statx could tell; alignments of 0 then mean that direct I/O is not possible.
bool ask_statx(DirectIo& direct) {
  const auto answer = StatxAnswer::ask(direct.fd.get(), kStatxDirectAlign);
  if (!answer) return false;
  direct.memory_align = answer->field<uint32_t>(kMemoryAlignAt);
  direct.offset_align = answer->field<uint32_t>(kOffsetAlignAt);
  return true;
}

// The least of the usual block sizes with which a read succeeds, 0 if none does; errno says why.
uint32_t try_reading(int fd) {
  constexpr uint32_t kLargest = 64U << 10;
  struct stat status {};
  // Of an empty file any read succeeds, so nothing is learnt and the safe answer is given.
  if (::fstat(fd, &status) == 0 && status.st_size == 0) return 4096;
  const AlignedBytes memory = allocate_aligned(kLargest, 2 * kLargest);
  if (!memory) return 0;
  for (uint32_t align = 512; align <= kLargest; align *= 2) {
    // Memory and, where the file is long enough, offset are multiples of `align` and no more.
    const off_t offset = status.st_size > align ? align : 0;
    const Read read{.offset = static_cast<uint64_t>(offset),
                    .size = align,
                    .required = 1,
                    .target = memory.get() + align};
    ReadProgress progress(read, {.size = static_cast<uint64_t>(status.st_size), .align = align});
    if (read_fully(fd, progress)) return align;
    errno = progress.error_number();
    if (errno == 0) return align;  // it ends here by now
    if (errno != EINVAL) return 0;
  }
  return 0;
}

std::string reason(const char* what, int error_number) {
  char text[128];
  return fmt::format("no direct I/O here ({}: {})", what,
                     strerror_r(error_number, text, sizeof text));
}

}  // namespace

DirectIo open_direct(int fd, const std::string& path) {
  DirectIo direct;
  direct.fd = reopen(fd, path, O_RDONLY | O_DIRECT);
  if (!direct.fd) {
    direct.error_number = errno;
    direct.refusal = reason("open with O_DIRECT", direct.error_number);
    return direct;
  }
  if (ask_statx(direct)) {
    if (direct.memory_align == 0 || direct.offset_align == 0) {
      direct.refusal = "no direct I/O on this file (statx reports no alignment for it)";
    }
  } else {
    direct.memory_align = direct.offset_align = try_reading(direct.fd.get());
    if (direct.offset_align == 0) direct.refusal = reason("a trial read", errno);
  }
  if (!direct.refusal.empty()) direct.fd = Fd();
  return direct;
}

}  // namespace inrush
