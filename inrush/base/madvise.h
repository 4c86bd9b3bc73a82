// Advice of madvise(2) that older C libraries do not name.
#pragma once

namespace inrush {

inline constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ: Linux 5.14, glibc 2.35

}  // namespace inrush
