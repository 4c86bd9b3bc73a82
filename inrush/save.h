// Saving safetensors: byte-identical to what safetensors itself writes, atomically.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/dtype.h"
#include "inrush/core/writer.h"

namespace inrush {

struct SaveTensor {
  std::string name;
  Dtype dtype = Dtype::u8;
  std::vector<uint64_t> shape;
  std::span<const std::byte> data;
};

struct SaveOptions {
  std::optional<std::map<std::string, std::string>> metadata;
  bool sync = true;  // fsync the file and its folder before it takes its name
};

// Writes `path` through a temporary beside it. Throws Error; then nothing is left behind.
void save_file(const std::string& path, std::vector<SaveTensor> tensors,
               const SaveOptions& options);

// The header that safetensors would write: 8 bytes of length, JSON, padding.
std::string safetensors_header(std::vector<SaveTensor>& tensors,
                               const std::optional<std::map<std::string, std::string>>& metadata);

// A writer of a local file: temporary, fsync, rename.
std::unique_ptr<Writer> make_file_writer(const std::string& path, bool sync);

}  // namespace inrush
