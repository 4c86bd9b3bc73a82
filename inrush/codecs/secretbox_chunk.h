// One chunk of libsodium's crypto_secretbox, its code apart, in place. Cipher and code go over the
// bytes together, a page at a time, where crypto_secretbox takes them through memory twice.
#pragma once

#include <array>
#include <cstddef>
#include <span>

namespace inrush {

struct ChunkSecrets {
  std::span<const std::byte, 32> key;
  std::span<const std::byte, 24> nonce;
};

// Encrypts; the code of what came out.
std::array<std::byte, 16> encrypt_chunk(std::span<std::byte> data, const ChunkSecrets& secrets);

// Decrypts. False if this is not the code: then the chunk is as it was.
bool decrypt_chunk(std::span<std::byte> data, const ChunkSecrets& secrets,
                   std::span<const std::byte, 16> code);

}  // namespace inrush
