// Checkpoints of torch.save: zip archives with a pickle that says which storages make which
// tensors. Nothing of the pickle is run. docs/formats/pytorch.md has the layout. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

// An entry of the archive as it lies in the file.
struct TorchEntry {
  std::string name;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint32_t crc32 = 0;
  bool storage = false;  // else it is the structure, or about the file
};

struct TorchFile {
  std::vector<TorchEntry> entries;  // by offset; without those that are never read
  bool sums = true;                 // false: saved without CRC-32s
};

// Throws Error{data} naming file, range and reason.
TorchFile read_torch_file(Store& store, const Blob& blob);
// Its `sums` alone, which the archive's directory tells: without a read for each entry.
bool has_torch_sums(Store& store, const Blob& blob);

bool named_pytorch(std::string_view entry);
bool begins_pytorch(std::span<const std::byte> head);
Index index_pytorch(Store& store, const std::vector<std::string>& entries);

}  // namespace inrush
