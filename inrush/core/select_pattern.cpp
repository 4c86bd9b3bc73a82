#include "inrush/core/select_pattern.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace inrush {
namespace {

constexpr std::string_view kRegexPrefix = "re:";
constexpr size_t kLongestCompared = 256;  // bytes of a name that count as a likeness
constexpr size_t kMostSuggestions = 3;

// Whether c is in the class that begins at pattern[at] == '['; moves `at` behind it. Nothing if the
// class never ends.
std::optional<bool> in_class(std::string_view pattern, size_t& at, char c) {
  size_t i = at + 1;
  const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (negated) ++i;
  const auto byte = static_cast<unsigned char>(c);
  bool found = false;
  for (const size_t first = i; i < pattern.size(); ++i) {
    if (pattern[i] == ']' && i > first) {
      at = i + 1;
      return found != negated;
    }
    const auto low = static_cast<unsigned char>(pattern[i]);
    auto high = low;
    if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      high = static_cast<unsigned char>(pattern[i += 2]);
    }
    found = found || (low <= byte && byte <= high);
  }
  return std::nullopt;
}

// Whether the pattern's next element takes this byte; moves `at` behind the element if so.
bool takes(std::string_view pattern, size_t& at, char c) {
  if (at == pattern.size()) return false;
  if (pattern[at] == '[') {
    size_t behind = at;
    if (const auto found = in_class(pattern, behind, c)) {
      at = *found ? behind : at;
      return *found;
    }
  }
  if (pattern[at] != '?' && pattern[at] != c) return false;
  ++at;
  return true;
}

// Insertions, deletions and replacements that turn a into b.
size_t edits(std::string_view a, std::string_view b, std::vector<size_t>& row) {
  row.resize(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({replaced, row[j] + 1, row[j + 1] + 1}));
    }
  }
  return row[b.size()];
}

}  // namespace

Pattern::Pattern(const Index& index, std::string text) : text_(std::move(text)) {
  if (text_.starts_with(kRegexPrefix)) {
    regex_.emplace(std::string_view(text_).substr(kRegexPrefix.size()));
  } else if (const TensorInfo* tensor = index.find(text_)) {
    exact_ = static_cast<uint32_t>(tensor - index.tensors.data());
  } else {
    unknown_ = text_.find_first_of("*?[") == std::string::npos;
  }
}

bool Pattern::matches(std::string_view name) const {
  if (regex_) return regex_->found_in(name);
  if (exact_ || unknown_) return name == text_;
  return matches_glob(text_, name);
}

// A later '*' makes earlier ones irrelevant, so only the last is ever tried again: at worst the
// product of the two lengths.
bool matches_glob(std::string_view pattern, std::string_view name) {
  size_t at = 0;
  size_t star = std::string_view::npos;  // behind the last '*'
  size_t star_name = 0;                  // where the name went on after what that '*' took
  for (size_t i = 0; i < name.size();) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = ++at;
      star_name = i;
    } else if (takes(pattern, at, name[i])) {
      ++i;
    } else if (star != std::string_view::npos) {
      at = star;
      i = ++star_name;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', at) == std::string_view::npos;
}

std::vector<std::string> closest_names(const Index& index, std::string_view name) {
  name = name.substr(0, kLongestCompared);
  std::vector<std::pair<size_t, uint32_t>> best;  // edits, tensor
  std::vector<size_t> row;
  for (uint32_t i = 0; i < index.tensors.size(); ++i) {
    const std::string_view other =
        std::string_view(index.tensors[i].name).substr(0, kLongestCompared);
    const size_t least = std::max(name.size(), other.size()) - std::min(name.size(), other.size());
    if (best.size() == kMostSuggestions && least >= best.back().first) continue;
    const std::pair candidate(edits(name, other, row), i);
    best.insert(std::upper_bound(best.begin(), best.end(), candidate), candidate);
    if (best.size() > kMostSuggestions) best.pop_back();
  }
  std::vector<std::string> names;
  for (const auto& [distance, i] : best) {
    if (distance <= std::max(name.size() / 2, size_t{3})) names.push_back(index.tensors[i].name);
  }
  return names;
}

}  // namespace inrush
