// Random bits of the kernel, for names that nobody else makes and waits that nobody else takes.
// Any thread may ask.
#pragma once

#include <cstdint>

namespace inrush {

// Throws Error{source} where the kernel gives none. Not std::random_device: GCC's static library
// makes that one ask for a C library of 2022.
uint64_t random_bits();

}  // namespace inrush
