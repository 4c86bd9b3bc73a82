#include "inrush/base/ini.h"

#include <algorithm>

#include "inrush/base/text.h"

namespace inrush {

std::map<std::string, IniSection> parse_ini(std::string_view text) {
  std::map<std::string, IniSection> sections;
  std::string section;
  bool has_nested = false;  // the line that began at the margin last: "s3 =" with its own settings
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view line = trimmed(raw);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '[') {
      section = trimmed(line.substr(1, std::min(line.find(']'), line.size()) - 1));
      has_nested = false;
      continue;
    }
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view value = trimmed(line.substr(equals + 1));
    const bool indented = raw.front() == ' ' || raw.front() == '\t';
    if (indented && has_nested) continue;
    if (!indented) has_nested = value.empty();
    sections[section][std::string(trimmed(line.substr(0, equals)))] = value;
  }
  return sections;
}

}  // namespace inrush
