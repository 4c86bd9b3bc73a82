// What direct I/O (O_DIRECT) asks on one open file. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "inrush/base/fd.h"

namespace inrush {

struct DirectIo {
  Fd fd;                      // the same inode, open with O_DIRECT; empty where it cannot be
  uint32_t memory_align = 0;  // bytes, of the target's address
  uint32_t offset_align = 0;  // bytes, of offset and length
  std::string refusal;        // why direct I/O cannot be had; empty: it can
  int error_number = 0;       // of the open that failed
};

// Opens the file of `fd` anew with O_DIRECT and asks statx, else a trial read, for alignments.
DirectIo open_direct(int fd, const std::string& path);

}  // namespace inrush
