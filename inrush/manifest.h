// A manifest says what a checkpoint must be: its files, its tensors and the digest of each.
// Values and pure functions. docs/formats/manifest.md has the layout of the JSON.
//
//   LoadOptions options;
//   options.decoder = inrush::sha256_tree();
//   ... load everything, then: make_manifest(checkpoint.index(), load.digests())
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/codecs/sha256_tree.h"
#include "inrush/core/index.h"

namespace inrush {

struct ManifestFile {
  std::string name;   // relative to the folder that all files lie in
  uint64_t size = 0;  // bytes
  bool operator==(const ManifestFile&) const = default;
};

struct ManifestTensor {
  std::string name;
  std::string file;  // a ManifestFile's name
  Dtype dtype = Dtype::u8;
  std::vector<uint64_t> shape;
  uint64_t size = 0;                // bytes
  std::string digest;               // root of the tree, 64 hex digits; "": not known
  std::vector<std::string> leaves;  // of the tree, optional
  bool operator==(const ManifestTensor&) const = default;
};

struct Manifest {
  static constexpr uint64_t kSchemaVersion = 1;
  std::string format;
  std::vector<ManifestFile> files;      // sorted by name
  std::vector<ManifestTensor> tensors;  // sorted by name
  bool operator==(const Manifest&) const = default;
};

// Digests by tensor name, as Load::digests() has them, and leaves likewise; both may be empty.
Manifest make_manifest(const Index& index, const std::map<std::string, std::string>& digests = {},
                       const std::map<std::string, std::vector<std::string>>& leaves = {});

std::string to_json(const Manifest& manifest);

// Throws Error{data} that names `source` for anything but a manifest of a version it knows.
Manifest parse_manifest(std::string_view json, const std::string& source);

enum class Differs : uint8_t { missing, extra, dtype, shape, digest, file };

struct Difference {
  Differs what = Differs::missing;
  std::string name;  // of the tensor, or of the file
  std::string text;  // one line for people: name, what is there, what was expected
};

// Everything in which `actual` is not what was expected, tensors first, by name. A digest that
// either side does not know is not compared.
std::vector<Difference> compare(const Manifest& expected, const Manifest& actual);

}  // namespace inrush
