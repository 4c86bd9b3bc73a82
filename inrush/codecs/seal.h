// The keys of a sealed file, and the tag over its header: keyed BLAKE2b-256. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "inrush/codecs/secretbox.h"

namespace inrush {

// What comes from one key for one file. Whoever has a key and a salt gets the same.
struct SealKeys {
  SecretKey header;  // authenticates
  SecretKey data;    // encrypts
};

SealKeys seal_keys(const SecretKey& key, std::span<const std::byte, 32> salt);

std::array<std::byte, 32> seal_tag(const SecretKey& key, std::span<const std::byte> covered);

// In the same time wherever they differ.
bool same_tag(std::span<const std::byte, 32> a, std::span<const std::byte, 32> b);

// Encrypts one chunk in place; its code. Chunks of a file are counted from 0.
std::array<std::byte, 16> seal_chunk(std::span<std::byte> data, const SecretKey& key,
                                     uint64_t index);

}  // namespace inrush
