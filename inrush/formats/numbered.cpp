#include "inrush/formats/numbered.h"

#include <fmt/format.h>

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "inrush/base/text.h"

namespace inrush {
namespace {

constexpr std::string_view kOf = "-of-";
constexpr size_t kDigits = 5;  // as transformers, diffusers and llama.cpp number them

struct Part {
  std::string_view before;  // all but the numbers
  std::string_view after;
  size_t number = 0;
  size_t count = 0;
};

std::optional<size_t> number_in(std::string_view text) {
  const auto number = to_number(text);
  return text.size() == kDigits && number ? std::optional<size_t>(*number) : std::nullopt;
}

std::optional<Part> part_of(std::string_view entry) {
  const size_t at = entry.rfind(kOf);
  if (at == std::string_view::npos || at < kDigits + 1) return std::nullopt;
  const size_t begin = at - kDigits;
  const size_t end = at + kOf.size();
  if (entry[begin - 1] != '-' && entry[begin - 1] != '_') return std::nullopt;
  const auto number = number_in(entry.substr(begin, kDigits));
  const auto count = number_in(entry.substr(end, kDigits));
  if (!number || !count || entry.substr(end).size() <= kDigits || entry[end + kDigits] != '.') {
    return std::nullopt;
  }
  return Part{entry.substr(0, begin), entry.substr(end + kDigits), *number, *count};
}

}  // namespace

std::vector<std::string> missing_parts(const std::vector<std::string>& entries) {
  using Whole = std::pair<std::pair<std::string_view, std::string_view>, size_t>;
  std::map<Whole, std::set<size_t>> wholes;
  for (const auto& entry : entries) {
    if (const auto part = part_of(entry)) {
      wholes[{{part->before, part->after}, part->count}].insert(part->number);
    }
  }
  std::vector<std::string> missing;
  for (const auto& [whole, there] : wholes) {
    const auto& [text, count] = whole;
    const size_t first = *there.begin() == 0 ? 0 : 1;  // some count from 0, to the last or past it
    for (size_t i = first; i < first + count && there.size() < count; ++i) {
      if (there.contains(i)) continue;
      missing.push_back(fmt::format("{}{:05}-of-{:05}{}", text.first, i, count, text.second));
    }
  }
  return missing;
}

}  // namespace inrush
