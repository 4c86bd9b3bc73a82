// XSalsa20 and Poly1305 of chunks, as libsodium's crypto_secretbox has them, decrypted where the
// bytes lie; and keys, from a passphrase by Argon2id. Any thread; a decoder's chunks on several.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/decoder.h"

namespace inrush {

// 32 bytes that are wiped when the last copy goes.
class SecretKey {
 public:
  static constexpr size_t kSize = 32;
  SecretKey() = default;
  explicit SecretKey(std::span<const std::byte, kSize> bytes);
  ~SecretKey();
  SecretKey(const SecretKey&) = default;
  SecretKey& operator=(const SecretKey&) = default;
  [[nodiscard]] std::span<const std::byte, kSize> bytes() const { return bytes_; }

 private:
  std::array<std::byte, kSize> bytes_{};
};

struct KeyCost {
  uint64_t operations = 0;
  uint64_t memory = 0;  // bytes
};

// Argon2id. Throws Error{memory} if so much is not to be had, Error{data} for impossible costs.
SecretKey derive_key(std::string_view passphrase, std::span<const std::byte, 16> salt,
                     const KeyCost& cost);

// Zeros that no compiler leaves out.
void wipe(std::span<std::byte> bytes);

// Fills with bytes that nobody can foresee.
void fill_random(std::span<std::byte> bytes);

// The nonce of chunk `index`, where this is that of chunk 0.
std::array<std::byte, 24> nonce_of(const std::array<std::byte, 24>& first, uint64_t index);

struct Secretbox {
  uint64_t chunk_size = 0;  // bytes
  std::array<std::byte, 24> nonce{};
  std::vector<std::array<std::byte, 16>> codes;  // of each chunk
};

// Encrypts in place and fills box.codes, on all cores.
void encrypt(std::span<std::byte> data, const SecretKey& key, Secretbox& box);

// Decrypts a tensor in place, its chunks in any order. Throws Error{data} naming tensor, file and
// chunk where the key is wrong or a byte was changed; that chunk is left as it was.
std::unique_ptr<Decoder> make_secretbox(const TensorInfo& tensor, std::string file,
                                        const SecretKey& key, Secretbox box);

}  // namespace inrush
