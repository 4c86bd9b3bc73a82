// Writes what safetensors 0.8.0 writes, byte for byte (the layout: formats/safetensors.cpp):
// tensors by dtype, the last of the enum first, then by name; no white space in the JSON; spaces
// behind it up to a multiple of 8. Two things differ, on purpose. safetensors writes several
// metadata keys in an order that changes from run to run; here they are sorted, so equal input
// gives equal files. And for metadata without any tensor it writes what it cannot read itself.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/safetensors.h"
#include "inrush/save.h"
#include "inrush/save/parts.h"
#include "inrush/save/watched.h"
#include "inrush/stores/stores.h"

namespace inrush {
namespace {

[[noreturn]] void refuse(const std::string& reason) {
  throw Error(ErrorCode::usage, "save " + reason);
}

void check_text(const char* what, const std::string& text) {
  if (!is_utf8(text)) refuse(fmt::format("{} {}: not valid UTF-8", what, quoted(text)));
}

// Nothing if there are more than 2^64.
std::optional<uint64_t> bits_in(const SaveTensor& tensor) {
  uint64_t bits = bits_of(tensor.dtype);
  for (const uint64_t length : tensor.shape) {
    if (__builtin_mul_overflow(bits, length, &bits)) return std::nullopt;
  }
  return bits;
}

// The data is what dtype and shape say it is.
void check_tensor(const SaveTensor& tensor) {
  check_text("tensor", tensor.name);
  if (tensor.name == "__metadata__") refuse("tensor \"__metadata__\": the name is taken");
  const std::optional<uint64_t> bits = bits_in(tensor);
  const bool whole = bits && *bits % 8 == 0;
  if (whole && (tensor.read || *bits / 8 == tensor.data.size())) return;
  refuse(fmt::format(
      "tensor {}: {}, but {}[{}] takes {}", quoted(tensor.name),
      tensor.read ? "whole bytes are read" : fmt::format("{} bytes given", tensor.data.size()),
      name_of(tensor.dtype), fmt::join(tensor.shape, ", "),
      bits ? fmt::format("{} bits", *bits) : "more than 2^64 bits"));
}

void sort_and_check(std::vector<SaveTensor>& tensors) {
  for (const auto& tensor : tensors) check_tensor(tensor);
  std::sort(tensors.begin(), tensors.end(), [](const SaveTensor& a, const SaveTensor& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  std::vector<std::string_view> names;
  for (const auto& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) refuse(fmt::format("tensor {}: given twice", quoted(*twice)));
}

std::string metadata_json(const std::map<std::string, std::string>& metadata) {
  std::string json = "\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    check_text("metadata key", key);
    check_text("metadata value", value);
    if (json.back() != '{') json += ',';
    json += json_string(key) + ":" + json_string(value);
  }
  return json + "}";
}

}  // namespace

uint64_t size_of(const SaveTensor& tensor) {
  return tensor.read ? bits_in(tensor).value_or(0) / 8 : tensor.data.size();
}

std::string safetensors_header(std::vector<SaveTensor>& tensors,
                               const SaveOptions::Metadata& metadata) {
  sort_and_check(tensors);
  std::string header(kLengthSize, '\0');
  header += '{';
  if (metadata) header += metadata_json(*metadata);
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    if (header.size() > kLengthSize + 1) header += ',';
    const uint64_t end = offset + size_of(tensor);
    header += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          json_string(tensor.name), name_of(tensor.dtype),
                          fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  header += '}';
  header.resize(align_up(header.size(), kLengthSize), ' ');
  uint64_t length = header.size() - kLengthSize;
  if (length > kLargestSafetensorsHeader) {
    refuse(fmt::format("a header of {} bytes: over the limit of {}; several files take more",
                       length, kLargestSafetensorsHeader));
  }
  for (size_t i = 0; i < kLengthSize; ++i, length >>= 8) {
    header[i] = static_cast<char>(length & 0xFF);
  }
  return header;
}

void write_safetensors(Writer& writer, std::vector<SaveTensor> tensors,
                       const SaveOptions::Metadata& metadata) {
  const std::string header = safetensors_header(tensors, metadata);
  std::vector<Extent> extents(1 + tensors.size());
  extents[0] = {header.size(), std::as_bytes(std::span(header)).data(), {}};
  for (size_t i = 0; i < tensors.size(); ++i) {
    SaveTensor& tensor = tensors[i];
    extents[i + 1] = {size_of(tensor), tensor.data.data(), std::move(tensor.read)};
    if (extents[i + 1].read) extents[i + 1].data = nullptr;
  }
  write_parts(writer, extents);
}

std::unique_ptr<Writer> make_writer(const std::string& place, bool sync,
                                    const StorageOptions& storage) {
  if (is_remote(place)) return make_remote_writer(place, storage);
  return make_file_writer(local_path(place), sync);
}

void save_file(const std::string& path, std::vector<SaveTensor> tensors,
               const SaveOptions& options) {
  const auto writer = watched(make_writer(path, options.sync, options.storage), options.stopped);
  if (options.seal) {
    Sealer(*options.seal, 1).write(*writer, std::move(tensors), options.metadata);
    return;
  }
  write_safetensors(*writer, std::move(tensors), options.metadata);
}

}  // namespace inrush
