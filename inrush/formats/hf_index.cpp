// Layout of an index file, JSON; other fields, such as "metadata" with "total_size", are skipped:
//
//   {"weight_map": {"tensor name": "model-00001-of-00002.safetensors", ...}}
//
// Files are named relative to the index file's folder.
#include "inrush/formats/hf_index.h"
#include "inrush/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/guess.h"

namespace inrush {
namespace {

// In the order of preference: what the first names is taken before what the second does.
struct IndexKind {
  std::string_view suffix;
  std::string_view preferred;
  std::string_view file;  // how the names of single files end, which go before later kinds
};
constexpr std::array kKinds{
    IndexKind{".safetensors.index.json", "model.safetensors.index.json", ".safetensors"},
    IndexKind{".bin.index.json", "pytorch_model.bin.index.json", ".bin"},
};
constexpr uint64_t kLargestHfIndex = 100'000'000;  // bytes, as the headers that it sums up
constexpr size_t kMostAbsentNamed = 5;             // in one error

bool stays_inside(std::string_view file) {
  if (file.empty() || file.back() == '/' || file.find('\0') != std::string_view::npos) return false;
  while (!file.empty()) {
    const size_t slash = std::min(file.find('/'), file.size());
    const std::string_view part = file.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    file.remove_prefix(std::min(slash + 1, file.size()));
  }
  return true;
}

class HfIndexParser {
 public:
  HfIndexParser(const JsonText& json, HfIndex& out) : reader_(json), out_(out) {}

  void run() {
    bool has_map = false;
    std::string_view key;
    reader_.enter_object();
    while (reader_.next_field(key)) {
      if (key != "weight_map") {
        reader_.skip();
        continue;
      }
      if (std::exchange(has_map, true)) reader_.fail("weight_map stands in it twice");
      read_map();
    }
    reader_.finish();
    if (!has_map) reader_.fail("it has no weight_map");
    if (out_.tensors.empty()) reader_.fail("its weight_map is empty");
    sort();
  }

 private:
  void read_map() {
    std::string_view tensor;
    reader_.enter_object();
    while (reader_.next_field(tensor)) {
      const std::string_view file = reader_.string();
      // Neighbours mostly lie in one file.
      if (out_.tensors.empty() || file != out_.files[out_.tensors.back().second]) {
        out_.tensors.emplace_back(tensor, number_of(file));
      } else {
        out_.tensors.emplace_back(tensor, out_.tensors.back().second);
      }
    }
  }

  uint32_t number_of(std::string_view file) {
    const auto [at, added] =
        numbers_.try_emplace(std::string(file), static_cast<uint32_t>(out_.files.size()));
    if (added && !stays_inside(file)) {
      reader_.fail(
          fmt::format("it names the file {}, which is not inside its folder", quoted(file)));
    }
    if (added) out_.files.emplace_back(file);
    return at->second;
  }

  void sort() {
    std::sort(out_.files.begin(), out_.files.end());
    std::vector<uint32_t> place(out_.files.size());
    for (uint32_t i = 0; i < place.size(); ++i) place[numbers_.at(out_.files[i])] = i;
    for (auto& [tensor, file] : out_.tensors) file = place[file];
    auto& tensors = out_.tensors;
    if (!std::is_sorted(tensors.begin(), tensors.end())) std::sort(tensors.begin(), tensors.end());
    const auto twice =
        std::adjacent_find(tensors.begin(), tensors.end(),
                           [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != tensors.end()) {
      reader_.fail(fmt::format("its weight_map has tensor {} twice", quoted(twice->first)));
    }
  }

  JsonReader reader_;
  HfIndex& out_;
  std::unordered_map<std::string, uint32_t> numbers_;
};

}  // namespace

std::optional<std::string> pick_hf_index(const std::vector<std::string>& entries,
                                         const std::string& uri) {
  for (const auto& kind : kKinds) {
    std::vector<std::string> found;
    bool files = false;
    for (const auto& entry : entries) {
      const std::string_view name = file_name(entry);
      if (name.front() == '.') continue;
      if (name == kind.preferred) return entry;
      if (name.ends_with(kind.suffix)) found.push_back(entry);
      files = files || name.ends_with(kind.file);
    }
    if (found.size() == 1) return found.front();
    if (found.size() > 1) {
      throw Error(
          ErrorCode::usage,
          fmt::format("open {}: several index files, any of which could be meant; open one of "
                      "them by its path: {}",
                      uri, fmt::join(found, ", ")));
    }
    if (files) return std::nullopt;
  }
  return std::nullopt;
}

HfIndex parse_hf_index(const JsonText& json, const std::string& name) {
  HfIndex index;
  index.name = name;
  try {
    HfIndexParser(json, index).run();
  } catch (const JsonFault& fault) {
    const auto* const head = reinterpret_cast<const std::byte*>(json.data());
    throw Error(ErrorCode::data, fmt::format("index {} [0, +{}): bad index at byte {}: {}{}", name,
                                             json.size(), fault.offset, fault.reason,
                                             json.size() > 0 && *json.data() != '{'
                                                 ? seems_to_be(std::span(head, json.size()))
                                                 : ""));
  }
  return index;
}

HfIndex read_hf_index(Store& store, const std::string& entry) {
  const Blob blob = store.open(entry);
  if (blob.size > kLargestHfIndex) {
    throw Error(ErrorCode::data, fmt::format("index {} [0, +{}): over the limit of {} bytes",
                                             blob.name, blob.size, kLargestHfIndex));
  }
  JsonText json(blob.size);
  store.read(blob, 0, std::as_writable_bytes(std::span(json.data(), json.size())));
  return parse_hf_index(json, blob.name);
}

void check_promises(const HfIndex& promised, const Index& found) {
  std::vector<std::string> absent;
  size_t more = 0;
  size_t at = 0;
  const auto name_at = [&](size_t i) -> const std::string& {
    return found.tensors[found.by_name[i]].name;
  };
  for (const auto& [tensor, file] : promised.tensors) {
    while (at < found.by_name.size() && name_at(at) < tensor) ++at;
    if (at < found.by_name.size() && name_at(at) == tensor) continue;
    if (absent.size() == kMostAbsentNamed) {
      ++more;
    } else {
      absent.push_back(fmt::format("{} ({})", quoted(tensor), quoted(promised.files[file])));
    }
  }
  if (absent.empty()) return;
  throw Error(
      ErrorCode::data,
      fmt::format("index {}: tensors that it names are in none of its files: {}{}", promised.name,
                  fmt::join(absent, ", "), more > 0 ? fmt::format(" and {} more", more) : ""));
}

}  // namespace inrush
