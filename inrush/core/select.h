// What users say they want, turned into Wants: patterns of names, a predicate, slices in Python's
// notation, an order. Pure; any thread.
//   select(index, {.include = {"layers.0.*"}, .slices = {{"*", parse_slices("0:1024, ::2")}}})
// A pattern is the exact name of a tensor; else, with one of * ? [ in it, a glob over the whole
// name, where * crosses dots; with "re:" before it, a regular expression (see select_regex.h) of
// which some part of the name must match.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/plan.h"

namespace inrush {

// start:stop:step as Python means it: parts may be absent, negative ones count from the end, what
// lies outside is cut off. The step is at least 1.
struct PythonSlice {
  std::optional<int64_t> start{};
  std::optional<int64_t> stop{};
  std::optional<int64_t> step{};
};

struct SliceRule {
  std::string pattern;
  std::vector<PythonSlice> slices;  // one per leading dimension
};

struct SelectOptions {
  std::vector<std::string> include{};  // empty: everything
  std::vector<std::string> exclude{};  // may match nothing
  std::function<bool(const TensorInfo&)> predicate{};
  std::vector<SliceRule> slices{};  // the first that matches a tensor cuts it
  // Names and patterns in the order wanted, and nothing else; empty: file order. A pattern stands
  // for what it matches and no entry before it does, in file order.
  std::vector<std::string> names{};
};

// "0:1024, ::2, -128:". Throws Error{usage}.
std::vector<PythonSlice> parse_slices(std::string_view text);

// The slices for a tensor of this shape; empty if they leave it whole. Throws Error{usage} for
// more slices than dimensions, or a step below 1.
std::vector<SliceDim> normalise(std::span<const PythonSlice> slices,
                                std::span<const uint64_t> shape);

// Throws Error{usage} for a name that is not there (naming the closest that are) and for a pattern
// of include or slices that matches nothing.
std::vector<Want> select(const Index& index, const SelectOptions& options);

}  // namespace inrush
