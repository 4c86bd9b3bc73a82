#include "inrush/core/index.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

template <typename T>
std::vector<T> permuted(std::vector<T>& values, const std::vector<uint32_t>& order) {
  std::vector<T> out;
  out.reserve(values.size());
  for (const uint32_t from : order) out.push_back(std::move(values[from]));
  return out;
}

std::vector<uint32_t> identity_order(size_t count) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0U);
  return order;
}

void sort_blobs(Index& index) {
  const auto before = [](const Blob& a, const Blob& b) { return a.name < b.name; };
  if (std::is_sorted(index.blobs.begin(), index.blobs.end(), before)) return;
  auto order = identity_order(index.blobs.size());
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return before(index.blobs[a], index.blobs[b]); });
  std::vector<uint32_t> place(order.size());
  for (uint32_t i = 0; i < order.size(); ++i) place[order[i]] = i;
  for (auto& tensor : index.tensors) tensor.blob = place[tensor.blob];
  index.blobs = permuted(index.blobs, order);
  index.metadata = permuted(index.metadata, order);
}

// File order. Empty tensors share an offset with what follows them, so they come first.
bool in_file_order(const TensorInfo& a, const TensorInfo& b) {
  if (a.blob != b.blob) return a.blob < b.blob;
  if (a.offset != b.offset) return a.offset < b.offset;
  if (a.size != b.size) return a.size < b.size;
  return a.name < b.name;
}

void sort_tensors(std::vector<TensorInfo>& tensors) {
  if (std::is_sorted(tensors.begin(), tensors.end(), in_file_order)) return;
  auto order = identity_order(tensors.size());
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return in_file_order(tensors[a], tensors[b]); });
  tensors = permuted(tensors, order);
}

// A tensor's name as it is sorted by: eight bytes behind what all names begin with, then the rest.
// Most comparisons so touch no string, each of which lies somewhere else in memory.
struct NameKey {
  uint64_t head;  // big-endian, filled up with zeros
  uint32_t tensor;
};

size_t common_prefix(const std::vector<TensorInfo>& tensors) {
  if (tensors.empty()) return 0;
  std::string_view prefix = tensors.front().name;
  for (const auto& tensor : tensors) {
    const auto end =
        std::mismatch(prefix.begin(), prefix.end(), tensor.name.begin(), tensor.name.end());
    prefix = prefix.substr(0, static_cast<size_t>(end.first - prefix.begin()));
  }
  return prefix.size();
}

std::vector<NameKey> name_keys(const std::vector<TensorInfo>& tensors, size_t prefix) {
  std::vector<NameKey> keys(tensors.size());
  for (uint32_t i = 0; i < keys.size(); ++i) {
    keys[i].tensor = i;
    const std::string& name = tensors[i].name;
    for (size_t k = prefix; k < prefix + sizeof(uint64_t); ++k) {
      keys[i].head = keys[i].head << 8 | (k < name.size() ? static_cast<uint8_t>(name[k]) : 0);
    }
  }
  return keys;
}

// Indices sorted by name, by merging the ascending runs that are there already: writers sort by
// dtype and then by name, so a file has one run per dtype. Names in no order at all cost what a
// merge sort costs.
std::vector<uint32_t> sorted_by_name(const std::vector<TensorInfo>& tensors) {
  auto keys = name_keys(tensors, common_prefix(tensors));
  const auto before = [&](const NameKey& a, const NameKey& b) {
    return a.head != b.head ? a.head < b.head : tensors[a.tensor].name < tensors[b.tensor].name;
  };
  std::vector<size_t> ends;  // of the runs
  for (size_t i = 1; i < keys.size(); ++i) {
    if (before(keys[i], keys[i - 1])) ends.push_back(i);
  }
  ends.push_back(keys.size());
  std::vector<NameKey> merged(keys.size());
  while (ends.size() > 1) {
    std::vector<size_t> next_ends;
    size_t begin = 0;
    for (size_t i = 0; i < ends.size(); i += 2) {
      const size_t middle = ends[i];
      const size_t end = i + 1 < ends.size() ? ends[i + 1] : middle;
      const auto at = [&](size_t offset) { return keys.begin() + static_cast<ptrdiff_t>(offset); };
      std::merge(at(begin), at(middle), at(middle), at(end),
                 merged.begin() + static_cast<ptrdiff_t>(begin), before);
      next_ends.push_back(end);
      begin = end;
    }
    keys.swap(merged);
    ends.swap(next_ends);
  }
  std::vector<uint32_t> order;
  order.reserve(keys.size());
  for (const NameKey& key : keys) order.push_back(key.tensor);
  return order;
}

[[noreturn]] void throw_duplicate(const Index& index, const TensorInfo& a, const TensorInfo& b) {
  const std::string& first = index.blobs[a.blob].name;
  const std::string& second = index.blobs[b.blob].name;
  const std::string what = "index " + first + " [" + std::to_string(a.offset) + ", +" +
                           std::to_string(a.size) + "): tensor " + quoted(a.name);
  if (a.blob == b.blob) throw Error(ErrorCode::data, what + " stands in it twice");
  throw Error(ErrorCode::data,
              what + " also stands in " + second + "; open only the files that belong together");
}

}  // namespace

const TensorInfo* Index::find(std::string_view name) const {
  const auto at = std::lower_bound(
      by_name.begin(), by_name.end(), name,
      [this](uint32_t i, std::string_view wanted) { return tensors[i].name < wanted; });
  if (at == by_name.end() || tensors[*at].name != name) return nullptr;
  return &tensors[*at];
}

void Index::finish() {
  metadata.resize(blobs.size());
  sort_blobs(*this);
  sort_tensors(tensors);
  by_name = sorted_by_name(tensors);
  const auto same = [this](uint32_t a, uint32_t b) { return tensors[a].name == tensors[b].name; };
  const auto twice = std::adjacent_find(by_name.begin(), by_name.end(), same);
  if (twice != by_name.end()) throw_duplicate(*this, tensors[*twice], tensors[*(twice + 1)]);
}

}  // namespace inrush
