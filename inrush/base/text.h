// Text taken apart and compared: what the parsers of small files, of protocols and of names share.
// Pure; never throws but for memory; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inrush {

// The text without white space at either end.
std::string_view trimmed(std::string_view text);

// ASCII letters in lower case; the locale has no say.
std::string lower(std::string_view text);

// Lines without their line feeds; fields between runs of spaces and tabs.
std::vector<std::string_view> lines_of(std::string_view text);
std::vector<std::string_view> fields_of(std::string_view line);

// What follows the last slash.
std::string_view file_name(std::string_view path);

// Whether one of the parts between its slashes is this: "..".
bool has_part(std::string_view path, std::string_view part);

// A whole decimal number and nothing else.
std::optional<uint64_t> to_number(std::string_view text);

}  // namespace inrush
