// Random checkpoints and random wants, and what must come of them, worked out element by element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/plan.h"
#include "inrush/load/preparation.h"

namespace inrush::test {

using FileBytes = std::vector<std::byte>;
using Random = std::mt19937_64;

// Safetensors files by name: a few shards of tensors of any shape, dtype and alignment, random
// bytes; about `size` bytes in all.
std::map<std::string, FileBytes> random_files(Random& random, uint64_t size);

// What `consumers` want of it: all the same, rows, columns, or each as it likes. In file order, or
// in a given one.
std::vector<Selection> random_wants(Random& random, const Index& index, uint32_t consumers,
                                    bool file_order);

// The bytes of one want, from the bytes of the tensor's file.
FileBytes wanted_bytes(const FileBytes& file, const TensorInfo& tensor, const Want& want);

// For a board of its own, on a machine of two processors: what a load settles, but for residency
// and choice.
Preparation prepare(const Checkpoint& checkpoint, const LoadOptions& options);

}  // namespace inrush::test
