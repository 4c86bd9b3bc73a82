// Layout: docs/formats/manifest.md. Fields that are not known are skipped, so that a later minor
// addition does not shut out earlier readers; a change of meaning raises schema_version.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/manifest.h"

namespace inrush {
namespace {

constexpr uint64_t kLargest = 1ULL << 30;  // bytes of JSON: 10 TB of weights with all leaves
constexpr size_t kHexSize = 64;

class ManifestParser {
 public:
  explicit ManifestParser(const JsonText& json) : reader_(json) {}

  Manifest run() {
    std::string_view key;
    reader_.enter_object();
    while (reader_.next_field(key)) {
      if (key == "schema_version") {
        read_version();
      } else if (key == "format") {
        manifest_.format = reader_.string();
      } else if (key == "digest") {
        if (const auto name = reader_.string(); name != kTreeName) {
          reader_.fail(fmt::format("digest {}: only {} is known", quoted(name), kTreeName));
        }
      } else if (key == "files") {
        read_files();
      } else if (key == "tensors") {
        read_tensors();
      } else {
        reader_.skip();
      }
    }
    reader_.finish();
    if (!has_version_) reader_.fail("no manifest: it has no schema_version");
    sort_and_check();
    return std::move(manifest_);
  }

 private:
  void read_version() {
    const uint64_t version = reader_.unsigned_integer();
    if (version != Manifest::kSchemaVersion) {
      reader_.fail(
          fmt::format("schema_version {}: this build reads {}", version, Manifest::kSchemaVersion));
    }
    has_version_ = true;
  }

  void read_files() {
    reader_.enter_array();
    while (reader_.next_element()) {
      ManifestFile& file = manifest_.files.emplace_back();
      std::string_view key;
      reader_.enter_object();
      while (reader_.next_field(key)) {
        if (key == "name") {
          file.name = reader_.file_name();
        } else if (key == "size") {
          file.size = reader_.unsigned_integer();
        } else {
          reader_.skip();
        }
      }
    }
  }

  void read_tensors() {
    std::string_view name;
    reader_.enter_object();
    while (reader_.next_field(name)) {
      ManifestTensor& tensor = manifest_.tensors.emplace_back();
      tensor.name = name;
      bool has_dtype = false;
      std::string_view key;
      reader_.enter_object();
      while (reader_.next_field(key)) {
        has_dtype = has_dtype || key == "dtype";
        read_field(tensor, key);
      }
      if (!has_dtype) reader_.fail(fmt::format("tensor {}: it has no dtype", quoted(tensor.name)));
      check_size(tensor);
    }
  }

  void read_field(ManifestTensor& tensor, std::string_view key) {
    if (key == "file") {
      tensor.file = reader_.file_name();
    } else if (key == "dtype") {
      const auto text = reader_.string();
      const auto dtype = dtype_named(text);
      if (!dtype) {
        reader_.fail(
            fmt::format("tensor {}: dtype {} is not known", quoted(tensor.name), quoted(text)));
      }
      tensor.dtype = *dtype;
    } else if (key == "shape") {
      tensor.shape.clear();
      reader_.enter_array();
      while (reader_.next_element()) tensor.shape.push_back(reader_.unsigned_integer());
    } else if (key == "size") {
      tensor.size = reader_.unsigned_integer();
    } else if (key == "digest") {
      tensor.digest = hex();
    } else if (key == "leaves") {
      tensor.leaves.clear();
      reader_.enter_array();
      while (reader_.next_element()) tensor.leaves.push_back(hex());
    } else {
      reader_.skip();
    }
  }

  std::string hex() {
    const auto text = reader_.string();
    const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (text.size() != kHexSize || !std::all_of(text.begin(), text.end(), is_digit)) {
      reader_.fail(fmt::format("{} is no digest: 64 lower-case hex digits", quoted(text)));
    }
    return std::string(text);
  }

  void check_size(const ManifestTensor& tensor) {
    uint64_t bits = bits_of(tensor.dtype);
    bool overflow = false;
    for (const uint64_t length : tensor.shape) {
      overflow = overflow || __builtin_mul_overflow(bits, length, &bits);
    }
    if (overflow || bits % 8 != 0 || bits / 8 != tensor.size) {
      reader_.fail(fmt::format("tensor {}: {} bytes do not fit {}[{}]", quoted(tensor.name),
                               tensor.size, name_of(tensor.dtype), fmt::join(tensor.shape, ", ")));
    }
    const uint64_t leaves = tensor.size / kLeafSize + (tensor.size % kLeafSize != 0 ? 1 : 0);
    if (!tensor.leaves.empty() && tensor.leaves.size() != leaves) {
      reader_.fail(fmt::format("tensor {}: {} leaves, but {} bytes have {}", quoted(tensor.name),
                               tensor.leaves.size(), tensor.size, leaves));
    }
  }

  template <typename T>
  void sort_by_name(std::vector<T>& values, const char* what) {
    std::sort(values.begin(), values.end(), [](const T& a, const T& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(values.begin(), values.end(),
                                          [](const T& a, const T& b) { return a.name == b.name; });
    if (twice != values.end()) {
      reader_.fail(fmt::format("{} {} stands in it twice", what, quoted(twice->name)));
    }
  }

  void sort_and_check() {
    sort_by_name(manifest_.files, "file");
    sort_by_name(manifest_.tensors, "tensor");
    const auto before = [](const ManifestFile& a, const std::string& b) { return a.name < b; };
    for (const auto& tensor : manifest_.tensors) {
      const auto at =
          std::lower_bound(manifest_.files.begin(), manifest_.files.end(), tensor.file, before);
      if (at == manifest_.files.end() || at->name != tensor.file) {
        reader_.fail(fmt::format("tensor {}: file {} is not among the files", quoted(tensor.name),
                                 quoted(tensor.file)));
      }
    }
  }

  JsonReader reader_;
  bool has_version_ = false;
  Manifest manifest_;
};

}  // namespace

Manifest parse_manifest(std::string_view json, const std::string& source) {
  if (json.size() > kLargest) {
    throw Error(ErrorCode::data, fmt::format("manifest {} [0, +{}): over the limit of {} bytes",
                                             source, json.size(), kLargest));
  }
  const JsonText text(json);
  try {
    return ManifestParser(text).run();
  } catch (const JsonFault& fault) {
    throw Error(ErrorCode::data, fmt::format("manifest {} [0, +{}): at byte {}: {}", source,
                                             json.size(), fault.offset, fault.reason));
  }
}

}  // namespace inrush
