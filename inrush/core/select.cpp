#include "inrush/core/select.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/core/select_pattern.h"

namespace inrush {
namespace {

constexpr std::string_view kBlank = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// Takes the text up to the separator, or all of it, off the front.
std::string_view split_off(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  const std::string_view part = trimmed(text.substr(0, end));
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return part;
}

[[noreturn]] void refuse_slice(std::string_view text, const char* why) {
  throw Error(ErrorCode::usage, fmt::format("slice {}: {}", quoted(text), why));
}

std::optional<int64_t> parse_bound(std::string_view text, std::string_view slice) {
  if (text.empty()) return std::nullopt;
  if (text.starts_with('+')) text.remove_prefix(1);
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) {
    refuse_slice(slice, "not of the form start:stop:step with whole numbers");
  }
  return value;
}

PythonSlice parse_slice(std::string_view text) {
  const auto colons = std::count(text.begin(), text.end(), ':');
  if (colons == 0) refuse_slice(text, "a ':' is missing; one index is written as 5:6");
  if (colons > 2) refuse_slice(text, "more than two ':'");
  std::string_view rest = text;
  PythonSlice slice;
  slice.start = parse_bound(split_off(rest, ':'), text);
  slice.stop = parse_bound(split_off(rest, ':'), text);
  slice.step = parse_bound(trimmed(rest), text);
  return slice;
}

// A bound of a dimension, counted from its beginning and inside it.
uint64_t place_bound(int64_t bound, uint64_t length) {
  if (bound >= 0) return std::min(static_cast<uint64_t>(bound), length);
  const uint64_t from_end = 0 - static_cast<uint64_t>(bound);
  return from_end < length ? length - from_end : 0;
}

[[noreturn]] void refuse_name(const Index& index, const std::string& name) {
  std::string message = fmt::format("select: no tensor is named {}", quoted(name));
  const std::vector<std::string> closest = closest_names(index, name);
  for (size_t i = 0; i < closest.size(); ++i) {
    message += fmt::format("{}{}", i == 0 ? "; the closest: " : ", ", quoted(closest[i]));
  }
  throw Error(ErrorCode::usage, message);
}

[[noreturn]] void refuse_pattern(const Index& index, const Pattern& pattern, const char* of) {
  if (pattern.unknown()) refuse_name(index, pattern.text());
  throw Error(ErrorCode::usage, fmt::format("select: {} pattern {} matches none of {} tensors", of,
                                            quoted(pattern.text()), index.tensors.size()));
}

// Sets wanted[i] for all tensors the pattern matches; returns how many it matches.
size_t mark(const Index& index, const Pattern& pattern, bool value, std::vector<bool>& wanted) {
  if (pattern.exact()) {
    wanted[*pattern.exact()] = value;
    return 1;
  }
  if (pattern.unknown()) return 0;
  size_t count = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!pattern.matches(index.tensors[i].name)) continue;
    wanted[i] = value;
    ++count;
  }
  return count;
}

std::vector<bool> wanted_tensors(const Index& index, const SelectOptions& options) {
  std::vector<bool> wanted(index.tensors.size(), options.include.empty());
  for (const std::string& text : options.include) {
    const Pattern pattern(index, text);
    if (mark(index, pattern, true, wanted) == 0) refuse_pattern(index, pattern, "include");
  }
  for (const std::string& text : options.exclude) {
    mark(index, Pattern(index, text), false, wanted);
  }
  for (size_t i = 0; options.predicate && i < wanted.size(); ++i) {
    wanted[i] = wanted[i] && options.predicate(index.tensors[i]);
  }
  return wanted;
}

// Adds the tensors of one entry of the list.
void add_named(const Index& index, const std::string& text, std::vector<bool>& named,
               std::vector<uint32_t>& order) {
  const auto add = [&](uint32_t tensor) {
    named[tensor] = true;
    order.push_back(tensor);
  };
  if (const TensorInfo* exact = index.find(text)) {
    const auto tensor = static_cast<uint32_t>(exact - index.tensors.data());
    if (named[tensor]) {
      throw Error(ErrorCode::usage, fmt::format("select: {} is named twice", quoted(text)));
    }
    return add(tensor);
  }
  const Pattern pattern(index, text);
  bool matched = false;
  for (uint32_t i = 0; i < index.tensors.size() && !pattern.unknown(); ++i) {
    if (!pattern.matches(index.tensors[i].name)) continue;
    matched = true;
    if (!named[i]) add(i);
  }
  if (!matched) refuse_pattern(index, pattern, "order");
}

// The tensors in the order wanted.
std::vector<uint32_t> ordered(const Index& index, const std::vector<std::string>& names) {
  std::vector<uint32_t> order;
  if (names.empty()) {
    order.resize(index.tensors.size());
    std::iota(order.begin(), order.end(), 0U);
    return order;
  }
  std::vector<bool> named(index.tensors.size());
  for (const std::string& name : names) add_named(index, name, named, order);
  return order;
}

void cut(const Index& index, const std::vector<SliceRule>& rules, std::vector<Want>& wants) {
  std::vector<bool> decided(wants.size());
  for (const SliceRule& rule : rules) {
    const Pattern pattern(index, rule.pattern);
    bool used = false;
    for (size_t i = 0; i < wants.size(); ++i) {
      const TensorInfo& tensor = index.tensors[wants[i].tensor];
      if (!pattern.matches(tensor.name)) continue;
      used = true;
      if (decided[i]) continue;
      decided[i] = true;
      try {
        wants[i].slice = normalise(rule.slices, tensor.shape);
      } catch (const Error& error) {
        throw Error(error.code(), fmt::format("select {}: {}", quoted(tensor.name), error.what()));
      }
    }
    if (!used) refuse_pattern(index, pattern, "slices");
  }
}

}  // namespace

std::vector<PythonSlice> parse_slices(std::string_view text) {
  std::vector<PythonSlice> slices;
  do {
    slices.push_back(parse_slice(split_off(text, ',')));
  } while (!trimmed(text).empty());
  return slices;
}

std::vector<SliceDim> normalise(std::span<const PythonSlice> slices,
                                std::span<const uint64_t> shape) {
  if (slices.size() > shape.size()) {
    throw Error(ErrorCode::usage,
                fmt::format("{} slices for {} dimensions", slices.size(), shape.size()));
  }
  std::vector<SliceDim> dims;
  for (size_t i = 0; i < slices.size(); ++i) {
    const int64_t step = slices[i].step.value_or(1);
    if (step < 1) {
      throw Error(ErrorCode::usage, fmt::format("a step of {} is not at least 1", step));
    }
    const uint64_t start = place_bound(slices[i].start.value_or(0), shape[i]);
    const uint64_t stop = slices[i].stop ? place_bound(*slices[i].stop, shape[i]) : shape[i];
    dims.push_back({start, std::max(start, stop), static_cast<uint64_t>(step)});
  }
  const auto whole = [&](const SliceDim& dim, uint64_t length) {
    return dim.start == 0 && dim.stop == length && dim.step == 1;
  };
  while (!dims.empty() && whole(dims.back(), shape[dims.size() - 1])) dims.pop_back();
  return dims;
}

std::vector<Want> select(const Index& index, const SelectOptions& options) {
  const std::vector<bool> wanted = wanted_tensors(index, options);
  std::vector<Want> wants;
  for (const uint32_t tensor : ordered(index, options.names)) {
    if (wanted[tensor]) wants.push_back({tensor});
  }
  cut(index, options.slices, wants);
  return wants;
}

}  // namespace inrush
