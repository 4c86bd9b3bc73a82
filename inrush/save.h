// Saving safetensors: byte-identical to what safetensors itself writes, atomically. What is saved
// is not copied as a whole: parts of a few MiB go through a Writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/dtype.h"
#include "inrush/core/storage.h"
#include "inrush/core/writer.h"

namespace inrush {

struct SaveTensor {
  std::string name;
  Dtype dtype = Dtype::u8;
  std::vector<uint64_t> shape;
  std::span<const std::byte> data;
  // Instead of data: fills `target` with the tensor's bytes from `offset` on, when they are due.
  // Called from several threads at once.
  std::function<void(uint64_t offset, std::span<std::byte> target)> read = nullptr;
};

// Bytes of the tensor's data.
uint64_t size_of(const SaveTensor& tensor);

struct SaveOptions {
  using Metadata = std::optional<std::map<std::string, std::string>>;
  Metadata metadata;
  bool sync = true;          // fsync the file and its folder before it takes its name
  StorageOptions storage{};  // of a remote place
};

struct ShardOptions {
  std::string filename_pattern = "model{suffix}.safetensors";
  uint64_t max_shard_size = 5'000'000'000;  // bytes of tensors; a larger tensor has its own file
  SaveOptions::Metadata metadata;           // of the one file, or of the index of several
  SaveOptions::Metadata file_metadata;      // of every file
  bool sync = true;
};

// Writes `path` through a temporary beside it, or the object of that URI, which is there when it is
// whole. Throws Error; then nothing is left behind.
void save_file(const std::string& path, std::vector<SaveTensor> tensors,
               const SaveOptions& options);

// Writes a checkpoint of one or several files, with an index where there are several, into
// `folder`, which is made if it is not there, and removes what an earlier save with this pattern
// left. Tensors are taken in the order given. Returns the names of the files, the index last. The
// files take their names when all are written; a reader that heeds the index never sees less than
// a whole without noticing. Throws Error.
std::vector<std::string> save_sharded(const std::string& folder, std::vector<SaveTensor> tensors,
                                      const ShardOptions& options);

// A safetensors file through any writer. Throws what that throws, after abort().
void write_safetensors(Writer& writer, std::vector<SaveTensor> tensors,
                       const SaveOptions::Metadata& metadata);

// The header that safetensors would write: 8 bytes of length, JSON, padding.
std::string safetensors_header(std::vector<SaveTensor>& tensors,
                               const SaveOptions::Metadata& metadata);

// A writer of a local file: temporary, fsync, rename.
std::unique_ptr<Writer> make_file_writer(const std::string& path, bool sync);

}  // namespace inrush
