#include "inrush/codecs/secretbox_chunk.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <sodium.h>

#include <random>
#include <vector>

#include "inrush/codecs/sodium_bytes.h"

namespace inrush::test {
namespace {

using Bytes = std::vector<std::byte>;

class SecretboxChunk : public ::testing::TestWithParam<size_t> {
 protected:
  SecretboxChunk() {
    if (::sodium_init() < 0) throw std::runtime_error("libsodium does not begin");
    ::randombytes_buf(key.data(), key.size());
    ::randombytes_buf(nonce.data(), nonce.size());
    for (Bytes* bytes : {&plain, &cipher}) bytes->reserve(1);  // libsodium wants an address
    ::randombytes_buf(plain.data(), plain.size());
    cipher = plain;
    crypto_secretbox_detached(sodium_bytes(cipher.data()), sodium_bytes(code.data()),
                              sodium_bytes(plain.data()), plain.size(), sodium_bytes(nonce.data()),
                              sodium_bytes(key.data()));
  }

  [[nodiscard]] ChunkSecrets secrets() const { return {key, nonce}; }

  void compare() const {
    Bytes bytes = plain;
    EXPECT_EQ(encrypt_chunk(bytes, secrets()), code);
    EXPECT_EQ(bytes, cipher);
    EXPECT_TRUE(decrypt_chunk(bytes, secrets(), code));
    EXPECT_EQ(bytes, plain);
  }

  std::array<std::byte, 32> key{};
  std::array<std::byte, 24> nonce{};
  std::array<std::byte, 16> code{};
  Bytes plain = Bytes(GetParam());
  Bytes cipher;
};

INSTANTIATE_TEST_SUITE_P(Sizes, SecretboxChunk,
                         ::testing::Values(0, 1, 31, 32, 33, 63, 64, 65, 4095, 4096, 4127, 4128,
                                           4129, 8224, 12345, (2 << 20) - 1, 2 << 20));

TEST_P(SecretboxChunk, is_libsodiums) { compare(); }

// A library in FIPS mode. In a process of its own, which has asked for nothing yet.
TEST_P(SecretboxChunk, is_libsodiums_where_openssl_has_no_poly1305) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const bool fips = EVP_set_default_properties(nullptr, "fips=yes") == 1;
        const bool none = EVP_MAC_fetch(nullptr, "POLY1305", nullptr) == nullptr;
        compare();
        ::_exit(fips && none && !HasFailure() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_P(SecretboxChunk, with_a_wrong_code_key_or_byte_stays_as_it_was) {
  Bytes bytes = cipher;
  std::array<std::byte, 16> wrong = code;
  wrong[GetParam() % wrong.size()] ^= std::byte{1};
  EXPECT_FALSE(decrypt_chunk(bytes, secrets(), wrong));
  EXPECT_EQ(bytes, cipher);
  key[GetParam() % key.size()] ^= std::byte{128};
  EXPECT_FALSE(decrypt_chunk(bytes, secrets(), code));
  EXPECT_EQ(bytes, cipher);
  key[GetParam() % key.size()] ^= std::byte{128};
  if (bytes.empty()) return;
  bytes.back() ^= std::byte{2};
  Bytes changed = bytes;
  EXPECT_FALSE(decrypt_chunk(bytes, secrets(), code));
  EXPECT_EQ(bytes, changed);
}

}  // namespace
}  // namespace inrush::test
