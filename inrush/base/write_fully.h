// Writes that complete wholly: the one place that resumes short counts and EINTR. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

// Writes all of `data` at `offset`; 0 or an errno.
int write_fully(int fd, uint64_t offset, std::span<const std::byte> data);

// Bytes that are best written into the page cache at once. It takes pages as large as what it is
// given, and where huge ones do not pay (madvise.h) small ones are wanted: 0.9 GB took 1.6 s in
// writes of 1 MiB where the host had taken the machine's free memory back, 0.2 s in those of 64
// KiB.
size_t best_cached_write();

// write_fully() through the page cache, in such pieces.
int write_cached(int fd, uint64_t offset, std::span<const std::byte> data);

}  // namespace inrush
