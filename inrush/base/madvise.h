// Advice of madvise(2), as what older C libraries do not name, and as whole ranges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace inrush {

inline constexpr int kPopulateRead = 22;   // MADV_POPULATE_READ: Linux 5.14, glibc 2.35
inline constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE: the same

// Brings the pages of a file's mapping in: 0 or errno. `alone`: faults shall not read ahead of
// themselves, for readahead(2) went before them and made small pages.
int populate(void* data, size_t size, bool alone);

inline constexpr size_t kHugePage = size_t{2} << 20;  // bytes

// Whether huge pages can be asked for without a look. Not where a virtual machine's host takes back
// what is free: it does so by 2 MiB and more, so a huge page may be one that it no longer backs,
// and each 4 KiB of it costs a fault of the host's when touched. Small pages mostly come from what
// is broken up and still backed: 1 GiB read and verified took 0.43 s in small ones, 1.6 s in huge
// ones (0.27 s where those were another process's a moment before).
[[nodiscard]] bool huge_pages_pay();

// The whole huge pages within.
[[nodiscard]] std::span<std::byte> huge_pages_in(void* data, size_t size);
// False if they do not come.
bool ask_huge_pages(std::span<std::byte> pages);

// Since Linux 5.18 a fault in a mapping for which huge pages are asked for fetches whole huge pages
// around it, 4 MiB at a time (2 MiB with MADV_RANDOM), whatever read_ahead_kb says.
[[nodiscard]] bool faults_fetch_huge_pages();

// Asks that a fault in these pages, mapped of a file of this size, fetch all of it in pages up to
// 1 MiB. The kernel's own read-ahead begins in 4 KiB and comes to larger ones after tens of MiB.
// Whether the host takes back free memory or not: it does so by whole huge pages. 512 files of
// 1 MiB, mapped, populated and touched, took 0.21 s so, 0.28 to 0.34 without; after 5 s of pause
// too. False if it does not come, or the file is no smaller than a huge page.
bool fetch_whole(std::span<std::byte> pages, uint64_t file_size);

// Asks for huge pages where whole ones fit, and they pay: a fault for each 2 MiB that is written,
// not for each 4 KiB. Best effort: without them it is slower, not wrong. False if they do not come.
bool advise_huge_pages(void* data, size_t size);

}  // namespace inrush
