#include "inrush/codecs/seal.h"

#include <sodium.h>

#include <string_view>

#include "inrush/codecs/sodium_bytes.h"

namespace inrush {
namespace {

static_assert(crypto_generichash_BYTES == 32 && crypto_generichash_KEYBYTES == 32);

std::array<std::byte, 32> keyed_hash(const SecretKey& key, std::string_view purpose,
                                     std::span<const std::byte> bytes) {
  crypto_generichash_state state;
  std::array<std::byte, 32> out;
  crypto_generichash_init(&state, sodium_bytes(key.bytes().data()), SecretKey::kSize, out.size());
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(purpose.data()),
                            purpose.size());
  crypto_generichash_update(&state, sodium_bytes(bytes.data()), bytes.size());
  crypto_generichash_final(&state, reinterpret_cast<unsigned char*>(out.data()), out.size());
  wipe(std::as_writable_bytes(std::span(&state, 1)));
  return out;
}

SecretKey sub_key(const SecretKey& key, std::string_view purpose, std::span<const std::byte> salt) {
  std::array<std::byte, 32> bytes = keyed_hash(key, purpose, salt);
  SecretKey made{std::span<const std::byte, SecretKey::kSize>(bytes)};
  wipe(bytes);
  return made;
}

}  // namespace

SealKeys seal_keys(const SecretKey& key, std::span<const std::byte, 32> salt) {
  return {sub_key(key, "inrush seal 1 header", salt), sub_key(key, "inrush seal 1 data", salt)};
}

std::array<std::byte, 32> seal_tag(const SecretKey& key, std::span<const std::byte> covered) {
  return keyed_hash(key, "", covered);
}

bool same_tag(std::span<const std::byte, 32> a, std::span<const std::byte, 32> b) {
  return ::sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::array<std::byte, 16> seal_chunk(std::span<std::byte> data, const SecretKey& key,
                                     uint64_t index) {
  Secretbox box{.chunk_size = data.size(), .nonce = nonce_of({}, index), .codes = {}};
  encrypt(data, key, box);
  return box.codes.front();
}

}  // namespace inrush
