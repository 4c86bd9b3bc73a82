// What a file that is no checkpoint seems to be, so that an error can say it.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace inrush {

// From the first bytes: "; it seems to be a git-LFS pointer, ..." or "" where nothing fits.
std::string seems_to_be(std::span<const std::byte> head);

}  // namespace inrush
