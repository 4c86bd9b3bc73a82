#include "inrush/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

// The part of the blobs' names that all share, up to the last slash in it.
size_t common_folder(const std::vector<Blob>& blobs) {
  if (blobs.empty()) return 0;
  // Sorted: what the first and the last share, all share.
  const auto& first = blobs.front().name;
  const auto& last = blobs.back().name;
  const auto differ = std::mismatch(first.begin(), first.end(), last.begin(), last.end()).first;
  const auto same = static_cast<size_t>(differ - first.begin());
  return same == 0 ? 0 : first.rfind('/', same - 1) + 1;
}

std::string hex_list(const std::vector<std::string>& digests) {
  return fmt::format("\"{}\"", fmt::join(digests, "\",\""));
}

std::string line_of(const ManifestTensor& tensor) {
  std::string line =
      fmt::format(R"(    {}: {{"file": {}, "dtype": "{}", "shape": [{}], "size": {})",
                  json_string(tensor.name), json_file_name(tensor.file), name_of(tensor.dtype),
                  fmt::join(tensor.shape, ", "), tensor.size);
  if (!tensor.digest.empty()) line += fmt::format(R"(, "digest": "{}")", tensor.digest);
  if (!tensor.leaves.empty()) line += fmt::format(R"(, "leaves": [{}])", hex_list(tensor.leaves));
  return line + "}";
}

std::string name_of_difference(Differs what) {
  switch (what) {
    case Differs::missing:
      return "missing";
    case Differs::extra:
      return "extra";
    case Differs::dtype:
      return "dtype";
    case Differs::shape:
      return "shape";
    case Differs::digest:
      return "digest";
    case Differs::file:
      return "file";
  }
  return {};
}

class Comparison {
 public:
  void tensor(const ManifestTensor& expected, const ManifestTensor& actual) {
    if (expected.dtype != actual.dtype) {
      add(Differs::dtype, expected.name, name_of(actual.dtype), name_of(expected.dtype));
    }
    if (expected.shape != actual.shape) {
      add(Differs::shape, expected.name, shape_text(actual), shape_text(expected));
    }
    if (expected.dtype != actual.dtype || expected.shape != actual.shape) return;
    if (expected.digest.empty() || actual.digest.empty() || expected.digest == actual.digest)
      return;
    add(Differs::digest, expected.name, actual.digest, expected.digest);
    out_.back().text += where(expected, actual);
  }

  void file(const ManifestFile& expected, const ManifestFile& actual) {
    if (expected.size == actual.size) return;
    out_.push_back({Differs::file, expected.name,
                    fmt::format("file {}: {} bytes, expected {}", quoted(expected.name),
                                actual.size, expected.size)});
  }

  void alone(Differs what, const std::string& name, const char* kind) {
    const bool is_file = kind == kFile;
    out_.push_back({is_file ? Differs::file : what, name,
                    fmt::format("{} {}: {}", kind, quoted(name),
                                what == Differs::missing ? "missing" : "not expected")});
  }

  // Merges two lists that are sorted by name.
  template <typename T, typename Both>
  void walk(const std::vector<T>& expected, const std::vector<T>& actual, const char* kind,
            const Both& both) {
    auto e = expected.begin();
    auto a = actual.begin();
    while (e != expected.end() || a != actual.end()) {
      if (a == actual.end() || (e != expected.end() && e->name < a->name)) {
        alone(Differs::missing, (e++)->name, kind);
      } else if (e == expected.end() || a->name < e->name) {
        alone(Differs::extra, (a++)->name, kind);
      } else {
        both(*e++, *a++);
      }
    }
  }

  static constexpr const char* kFile = "file";
  static constexpr const char* kTensor = "tensor";

  std::vector<Difference> finish() { return std::move(out_); }

 private:
  static std::string shape_text(const ManifestTensor& tensor) {
    return fmt::format("[{}]", fmt::join(tensor.shape, ", "));
  }

  // Which bytes differ, where both sides know their leaves.
  static std::string where(const ManifestTensor& expected, const ManifestTensor& actual) {
    if (expected.leaves.empty() || expected.leaves.size() != actual.leaves.size()) return {};
    size_t count = 0;
    uint64_t first = 0;
    for (size_t i = expected.leaves.size(); i-- > 0;) {
      if (expected.leaves[i] == actual.leaves[i]) continue;
      ++count;
      first = i * kLeafSize;
    }
    return fmt::format("; {} of {} leaves differ, the first at [{}, +{})", count,
                       expected.leaves.size(), first, std::min(kLeafSize, expected.size - first));
  }

  void add(Differs what, const std::string& name, std::string_view actual,
           std::string_view expected) {
    out_.push_back({what, name,
                    fmt::format("tensor {}: {} {}, expected {}", quoted(name),
                                name_of_difference(what), actual, expected)});
  }

  std::vector<Difference> out_;
};

}  // namespace

Manifest make_manifest(const Index& index, const std::map<std::string, std::string>& digests,
                       const std::map<std::string, std::vector<std::string>>& leaves) {
  Manifest manifest;
  manifest.format = index.format;
  const size_t folder = common_folder(index.blobs);
  for (const auto& blob : index.blobs) {
    manifest.files.push_back({blob.name.substr(folder), blob.size});
  }
  for (const uint32_t i : index.by_name) {
    const TensorInfo& tensor = index.tensors[i];
    const auto digest = digests.find(tensor.name);
    const auto leaf = leaves.find(tensor.name);
    manifest.tensors.push_back(
        {.name = tensor.name,
         .file = manifest.files[tensor.blob].name,
         .dtype = tensor.dtype,
         .shape = tensor.shape,
         .size = tensor.size,
         .digest = digest == digests.end() ? "" : digest->second,
         .leaves = leaf == leaves.end() ? std::vector<std::string>{} : leaf->second});
  }
  return manifest;
}

std::string to_json(const Manifest& manifest) {
  std::vector<std::string> files;
  for (const auto& file : manifest.files) {
    files.push_back(
        fmt::format(R"(    {{"name": {}, "size": {}}})", json_file_name(file.name), file.size));
  }
  std::vector<std::string> tensors;
  for (const auto& tensor : manifest.tensors) tensors.push_back(line_of(tensor));
  return fmt::format(
      "{{\n  \"schema_version\": {},\n  \"format\": {},\n  \"digest\": \"{}\",\n"
      "  \"files\": [\n{}\n  ],\n  \"tensors\": {{\n{}\n  }}\n}}\n",
      Manifest::kSchemaVersion, json_string(manifest.format), kTreeName, fmt::join(files, ",\n"),
      fmt::join(tensors, ",\n"));
}

std::vector<Difference> compare(const Manifest& expected, const Manifest& actual) {
  Comparison comparison;
  comparison.walk(expected.tensors, actual.tensors, Comparison::kTensor,
                  [&](const auto& e, const auto& a) { comparison.tensor(e, a); });
  comparison.walk(expected.files, actual.files, Comparison::kFile,
                  [&](const auto& e, const auto& a) { comparison.file(e, a); });
  return comparison.finish();
}

}  // namespace inrush
