// Sealed files: safetensors whose tensors are encrypted and whose header nobody changes without the
// key. docs/formats/sealed.md has the layout. Any thread.
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
#include "inrush/formats/safetensors.h"

namespace inrush {

inline constexpr uint64_t kSealedHeadSize = 192;        // bytes before the codes
inline constexpr uint64_t kSealedDataAlignment = 4096;  // of the first tensor in the file
inline constexpr uint64_t kLeastSealedChunk = 1ULL << 10;
inline constexpr uint64_t kMostSealedChunk = 1ULL << 30;

// The first bytes of a sealed file.
struct SealedHead {
  bool derived = false;     // the key comes from a passphrase, by Argon2id
  uint64_t operations = 0;  // what that costs
  uint64_t memory = 0;      // bytes
  std::array<std::byte, 16> derivation_salt{};
  std::array<std::byte, 32> salt{};  // of this file: no two have the same keys
  std::array<std::byte, 16> set{};   // of all files of one checkpoint
  uint32_t part = 0;                 // which of them this is, from 0
  uint32_t parts = 1;
  uint64_t chunk_size = 0;  // bytes encrypted at once
  uint64_t chunks = 0;
  uint64_t json_size = 0;
  std::array<std::byte, 32> tag{};  // over all bytes before the data but these

  [[nodiscard]] std::array<std::byte, kSealedHeadSize> encode() const;
  [[nodiscard]] uint64_t data_start() const;
};

struct SealedFile {
  SealedHead head;
  std::vector<std::byte> covered;  // what the tag is over
  std::vector<std::array<std::byte, 16>> codes;
  SafetensorsHeader header;           // offsets from the file's first byte
  std::vector<uint64_t> first_chunk;  // of each tensor
};

// Reads all but the tensors. Whether the tag is right is not looked at. Throws Error{data}.
SealedFile read_sealed_file(Store& store, const Blob& blob);

bool named_sealed(std::string_view entry);
bool begins_sealed(std::span<const std::byte> head);
Index index_sealed(Store& store, const std::vector<std::string>& entries);

}  // namespace inrush
