#include "inrush/codecs/secretbox.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "inrush/codecs/checksums.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

TensorInfo tensor_of(uint64_t size) {
  TensorInfo tensor;
  tensor.name = "w";
  tensor.size = size;
  return tensor;
}

template <typename Bytes>
std::string hex(const Bytes& bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

SecretKey counting_key() {
  std::array<std::byte, 32> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  return SecretKey(std::span<const std::byte, 32>(bytes));
}

std::array<std::byte, 24> nonce_filled_with(uint8_t value) {
  std::array<std::byte, 24> nonce;
  nonce.fill(static_cast<std::byte>(value));
  return nonce;
}

std::vector<std::byte> numbers(size_t count) {
  std::vector<int32_t> values(count);
  std::iota(values.begin(), values.end(), 0);
  std::vector<std::byte> bytes(count * 4);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

TEST(Secretbox, is_what_tensorizer_writes) {
  auto bytes = numbers(8);
  Secretbox box{2 << 20, nonce_filled_with(1), {}};
  encrypt(bytes, counting_key(), box);
  EXPECT_EQ(hex(bytes), "99a90090b1c07011e24c92bac4444aeea9b5c4f7f28fd45bad13c2908e476cb9");
  ASSERT_EQ(box.codes.size(), 1U);
  EXPECT_EQ(hex(box.codes[0]), "8745f805e93dfeb7e5e5e4c6ce40c051");
}

TEST(Secretbox, counts_its_nonces_up_with_carry) {
  auto nonce = nonce_filled_with(0xFF);
  EXPECT_EQ(hex(nonce_of(nonce, 1)), std::string(48, '0'));
  EXPECT_EQ(hex(nonce_of(nonce, 0)), std::string(48, 'f'));
  nonce = nonce_filled_with(0);
  nonce[0] = std::byte{0xFE};
  EXPECT_EQ(hex(nonce_of(nonce, 259)), "0102" + std::string(44, '0'));
}

TEST(Secretbox, opens_its_chunks_in_any_order) {
  const auto plain = numbers(1000);
  auto bytes = plain;
  Secretbox box{1024, nonce_filled_with(3), {}};
  encrypt(bytes, counting_key(), box);
  EXPECT_EQ(box.codes.size(), 4U);
  const TensorInfo tensor = tensor_of(bytes.size());
  const auto decoder = make_secretbox(tensor, "file", counting_key(), box);
  EXPECT_TRUE(decoder->traits().in_place);
  decoder->update(2048, std::span(bytes).subspan(2048));
  decoder->update(0, std::span(bytes).first(2048));
  EXPECT_EQ(decoder->finish(), "");
  EXPECT_EQ(bytes, plain);
}

TEST(Secretbox, refuses_changed_bytes_and_leaves_them_sealed) {
  const auto plain = numbers(1000);
  auto bytes = plain;
  Secretbox box{1024, nonce_filled_with(3), {}};
  encrypt(bytes, counting_key(), box);
  bytes[1500] ^= std::byte{1};
  const auto sealed = bytes;
  TensorInfo tensor = tensor_of(bytes.size());
  tensor.offset = 100;
  const auto decoder = make_secretbox(tensor, "file", counting_key(), box);
  try {
    decoder->update(1024, std::span(bytes).subspan(1024, 1024));
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data);
    EXPECT_NE(error.message().find("decrypt file [1124, +1024): tensor \"w\""), std::string::npos)
        << error.message();
  }
  EXPECT_EQ(bytes, sealed);
}

TEST(Key, is_derived_as_libsodium_does) {
  const std::array<std::byte, 16> salt{};
  EXPECT_EQ(hex(derive_key("test", salt, {1, 8192}).bytes()),
            "185d9543e6945bb30c6ecb2d1ac58a388ddfe954c34cf395a4fa12f986897662");
  EXPECT_THROW(derive_key("test", salt, {0, 8192}), Error);
  EXPECT_THROW(derive_key("test", salt, {1, ~0ULL}), Error);
}

TEST(CrcCheck, takes_stretches_in_any_order_and_what_lies_before_them) {
  auto bytes = numbers(1000);
  const auto before = numbers(77);
  TensorInfo tensor;
  tensor.name = "w";
  tensor.size = bytes.size();
  Checksums expected = checksums_of(before, bytes, true, false);
  expected.before = before;
  const auto check = [&](std::optional<uint32_t> crc32) {
    expected.crc32 = crc32;
    const auto decoder = make_crc_check(tensor, "file", [&] { return expected; });
    decoder->update(600, std::span(bytes).subspan(600));
    decoder->update(0, std::span(bytes).first(500));
    decoder->update(500, std::span(bytes).subspan(500, 100));
    return decoder->finish();
  };
  const uint32_t right = *expected.crc32;
  EXPECT_EQ(check(right), "");
  EXPECT_EQ(check(std::nullopt), "");
  EXPECT_THROW(check(right + 1), Error);
}

TEST(Chain, feeds_decoders_with_chunks_that_suit_both) {
  const auto plain = numbers(1000);
  auto bytes = plain;
  Secretbox box{1088, nonce_filled_with(3), {}};
  encrypt(bytes, counting_key(), box);
  const TensorInfo tensor = tensor_of(bytes.size());
  Checksums wrong;
  wrong.crc32 = 1;
  std::vector<std::unique_ptr<Decoder>> both;
  both.push_back(make_secretbox(tensor, "file", counting_key(), box));
  both.push_back(make_checksums(tensor, "file", [&] { return wrong; }));
  const auto chain = make_chain(tensor, std::move(both));
  EXPECT_EQ(chain->traits().chunk_size, 1088U);
  EXPECT_EQ(chain->traits().order, DecodeOrder::in_order);
  chain->update(0, bytes);
  EXPECT_EQ(bytes, plain);
  EXPECT_THROW(chain->finish(), Error);
}

}  // namespace
}  // namespace inrush
