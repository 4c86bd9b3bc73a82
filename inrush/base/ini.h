// INI files as AWS's tools and s3cmd keep them: "[section]", "name = value", # and ; comments.
// A value; whatever cannot be read is left out.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace inrush {

using IniSection = std::map<std::string, std::string>;

// By section name, as it stands between its brackets.
std::map<std::string, IniSection> parse_ini(std::string_view text);

}  // namespace inrush
