// The .tensors files of CoreWeave's tensorizer, versions 1 to 5. docs/formats/tensorizer.md has the
// layout. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

// How a key comes from a passphrase: Argon2id with these costs.
struct TensorsKeyDerivation {
  uint64_t operations = 0;
  uint64_t memory = 0;  // bytes
  std::array<std::byte, 16> salt{};
  bool operator==(const TensorsKeyDerivation&) const = default;
};

// XSalsa20 and Poly1305 of each chunk, the nonce one more for each.
struct TensorsCipher {
  uint64_t chunk_size = 0;  // bytes of a chunk; the last may be shorter
  std::array<std::byte, 24> nonce{};
  std::vector<std::array<std::byte, 16>> codes;  // of each chunk
};

// What stands before a tensor's bytes.
struct TensorsRecord {
  uint16_t module = 0;
  std::vector<std::byte> hashed;  // what the checksums cover before the tensor's bytes
  std::optional<uint32_t> crc32;
  std::optional<std::array<std::byte, 32>> sha256;
  std::optional<TensorsKeyDerivation> derivation;
  std::optional<TensorsCipher> cipher;
};

// A line of the file's index.
struct TensorsEntry {
  std::string path;   // as it stands in the file: text, or 0x1E and a JSON array
  uint8_t kind = 0;   // 0 parameter, 1 buffer, 2 of a state dict
  std::string dtype;  // as it stands there: "<f4", or "<V2", NUL, "torch.bfloat16"
  std::vector<uint64_t> shape;
  bool wide = false;    // the record's header has lengths of 64 bits
  uint64_t header = 0;  // where the record begins
  TensorInfo tensor;    // what is delivered; its name is the path with dots, and unique
};

struct TensorsFile {
  uint32_t version = 0;
  bool encrypted = false;
  std::vector<TensorsEntry> entries;  // in file order
};

// Reads the head and the index. Throws Error{data} naming file, range and reason.
TensorsFile read_tensors_file(Store& store, const Blob& blob);

// A line as it stands in an index.
struct TensorsLine {
  std::string_view path;
  bool nested = false;  // the path is 0x1E and a JSON array
  uint64_t end = 0;     // in the index; the next one begins there
};

// Of the index of a file that was read before. Throws Error{data} if it is cut off.
std::vector<TensorsLine> tensors_lines(std::span<const std::byte> index, uint64_t count,
                                       bool tagged);

// Reads what stands before a tensor's bytes, and holds it against the index.
TensorsRecord read_tensors_record(Store& store, const Blob& blob, const TensorsFile& file,
                                  const TensorsEntry& entry);

bool named_tensorizer(std::string_view entry);
bool begins_tensorizer(std::span<const std::byte> head);
Index index_tensorizer(Store& store, const std::vector<std::string>& entries);

}  // namespace inrush
