// One pattern over the names of an index: exact, glob or regular expression, as select.h says.
// Immutable once made; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/select_regex.h"

namespace inrush {

class Pattern {
 public:
  // Throws Error{usage} for a regular expression that is none.
  Pattern(const Index& index, std::string text);

  [[nodiscard]] bool matches(std::string_view name) const;

  // The tensor that it names exactly.
  [[nodiscard]] std::optional<uint32_t> exact() const { return exact_; }

  // Whether it says a name, and there is none such.
  [[nodiscard]] bool unknown() const { return unknown_; }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::optional<uint32_t> exact_;
  std::optional<Regex> regex_;
  bool unknown_ = false;
};

// fnmatch over bytes: * ? [a-z] [!a-z]. A '[' without its ']' is itself.
bool matches_glob(std::string_view pattern, std::string_view name);

// Up to three names of the index that look most like this one, best first.
std::vector<std::string> closest_names(const Index& index, std::string_view name);

}  // namespace inrush
