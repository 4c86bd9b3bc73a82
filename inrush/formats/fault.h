// How an index that cannot be right is refused: the file, the range, and the reason.
#pragma once

#include <cstdint>
#include <string>

namespace inrush {

// Throws Error: "index NAME [OFFSET, +SIZE): REASON".
[[noreturn]] void throw_at(const std::string& name, uint64_t offset, uint64_t size,
                           const std::string& reason);

}  // namespace inrush
