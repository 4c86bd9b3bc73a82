#include "inrush/base/ini.h"

#include <algorithm>

#include "inrush/base/text.h"

namespace inrush {

std::map<std::string, IniSection> parse_ini(std::string_view text) {
  std::map<std::string, IniSection> sections;
  std::string section;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view line = trimmed(raw);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '[') {
      section = trimmed(line.substr(1, std::min(line.find(']'), line.size()) - 1));
      continue;
    }
    // What is indented belongs to the line above: "s3 =" and its own settings.
    const bool nested = raw.front() == ' ' || raw.front() == '\t';
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos || nested) continue;
    sections[section][std::string(trimmed(line.substr(0, equals)))] =
        trimmed(line.substr(equals + 1));
  }
  return sections;
}

}  // namespace inrush
