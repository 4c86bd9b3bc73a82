// Small files of /proc and /sys: read whole, taken apart as text. Never throws; what is absent or
// malformed is empty. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inrush {

// The file's first 1 MiB; empty when it cannot be read.
std::string read_small_file(const std::string& path);

// The text without white space at either end.
std::string_view trimmed(std::string_view text);

// Lines without their line feeds; fields between runs of spaces and tabs.
std::vector<std::string_view> lines_of(std::string_view text);
std::vector<std::string_view> fields_of(std::string_view line);

// A whole decimal number and nothing else.
std::optional<uint64_t> to_number(std::string_view text);

// The number after `key` in a text of "key value" lines; a colon behind the key is passed over.
std::optional<uint64_t> number_after(std::string_view text, std::string_view key);

}  // namespace inrush
