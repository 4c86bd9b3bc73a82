// Advice of madvise(2), as what older C libraries do not name, and as whole ranges.
#pragma once

#include <cstddef>

namespace inrush {

inline constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ: Linux 5.14, glibc 2.35

// Asks for huge pages where whole ones fit: a fault for each 2 MiB that is written, not for each
// 4 KiB. Best effort: without them it is slower, not wrong.
void advise_huge_pages(void* data, size_t size);

}  // namespace inrush
