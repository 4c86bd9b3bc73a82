// Small files of /proc and /sys, read whole. Never throws; what is absent or malformed is empty.
// Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace inrush {

// The file's first 1 MiB; empty when it cannot be read.
std::string read_small_file(const std::string& path);

// The number after `key` in a text of "key value" lines; a colon behind the key is passed over.
std::optional<uint64_t> number_after(std::string_view text, std::string_view key);

}  // namespace inrush
