#include "inrush/codecs/sha256_tree.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <algorithm>
#include <random>

#include "../files.h"

namespace inrush::test {
namespace {

std::string sha256(const std::string& bytes) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

std::string hex(const std::string& bytes) {
  std::string text;
  for (const unsigned char byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

// The definition, on the whole tensor.
std::string root_of(const std::string& bytes) {
  std::string leaves;
  for (size_t at = 0; at < bytes.size(); at += kLeafSize)
    leaves += sha256(bytes.substr(at, kLeafSize));
  return hex(sha256(leaves));
}

TensorInfo tensor_of(const std::string& bytes) {
  TensorInfo tensor;
  tensor.name = "w";
  tensor.size = bytes.size();
  return tensor;
}

void feed(Decoder& decoder, std::string& bytes, uint64_t offset, uint64_t size) {
  const auto all = std::as_writable_bytes(std::span(bytes));
  decoder.update(offset, all.subspan(offset, std::min<uint64_t>(size, bytes.size() - offset)));
}

TEST(Sha256Tree, is_the_same_whatever_order_the_leaves_come_in) {
  std::mt19937_64 random(5);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{kLeafSize - 1}, size_t{kLeafSize},
                            size_t{kLeafSize + 1}, size_t{5 * kLeafSize + 77}}) {
    std::string bytes = random_text(size, size);
    std::vector<uint64_t> offsets;
    for (uint64_t at = 0; at < size; at += kLeafSize) offsets.push_back(at);
    std::shuffle(offsets.begin(), offsets.end(), random);
    const auto decoder = sha256_tree()(tensor_of(bytes));
    for (const uint64_t at : offsets) feed(*decoder, bytes, at, kLeafSize);
    EXPECT_EQ(decoder->finish(), root_of(bytes)) << size;
    const auto whole = sha256_tree()(tensor_of(bytes));
    if (size > 0) feed(*whole, bytes, 0, size);
    EXPECT_EQ(whole->finish(), root_of(bytes)) << size;
  }
}

TEST(Sha256Tree, refuses_what_is_not_whole_leaves_and_bytes_that_are_not_there) {
  std::string bytes = random_text(3 * kLeafSize + 5);
  const auto decoder = sha256_tree()(tensor_of(bytes));
  EXPECT_THROW(feed(*decoder, bytes, 1, kLeafSize), Error);
  EXPECT_THROW(feed(*decoder, bytes, 0, kLeafSize - 1), Error);
  std::string more = bytes + random_text(kLeafSize);
  EXPECT_THROW(feed(*decoder, more, 3 * kLeafSize, kLeafSize), Error);
}

TEST(Sha256Tree, names_the_bytes_that_never_came) {
  std::string bytes = random_text(3 * kLeafSize);
  const auto decoder = sha256_tree()(tensor_of(bytes));
  feed(*decoder, bytes, 0, kLeafSize);
  feed(*decoder, bytes, 2 * kLeafSize, kLeafSize);
  const auto text = message_of(ErrorCode::data, [&] { decoder->finish(); });
  EXPECT_TRUE(contains(text, "[1048576, +1048576)"));
}

TEST(Sha256Tree, throws_when_the_digest_is_not_the_expected_one) {
  std::string bytes = random_text(kLeafSize + 3);
  TreeOptions options;
  std::string expected = root_of(bytes);
  options.expected = [&](const TensorInfo&) { return expected; };
  const auto factory = sha256_tree(options);
  const auto good = factory(tensor_of(bytes));
  feed(*good, bytes, 0, bytes.size());
  EXPECT_EQ(good->finish(), expected);
  bytes[kLeafSize] = static_cast<char>(bytes[kLeafSize] ^ 1);
  const auto bad = factory(tensor_of(bytes));
  feed(*bad, bytes, 0, bytes.size());
  const auto text = message_of(ErrorCode::data, [&] { bad->finish(); });
  EXPECT_TRUE(contains(text, "\"w\""));
  EXPECT_TRUE(contains(text, expected));
}

TEST(Sha256Tree, throws_at_the_first_leaf_that_is_not_the_expected_one) {
  std::string bytes = random_text(2 * kLeafSize + 3);
  const std::vector<std::string> leaves = {hex(sha256(bytes.substr(0, kLeafSize))),
                                           hex(sha256(bytes.substr(kLeafSize, kLeafSize))),
                                           hex(sha256(bytes.substr(2 * kLeafSize)))};
  TreeOptions options;
  options.expected_leaves = [&](const TensorInfo&) { return std::span(leaves); };
  const auto factory = sha256_tree(options);
  const auto good = factory(tensor_of(bytes));
  feed(*good, bytes, 0, bytes.size());
  EXPECT_EQ(good->finish(), root_of(bytes));
  bytes[kLeafSize + 7] = static_cast<char>(bytes[kLeafSize + 7] ^ 1);
  const auto bad = factory(tensor_of(bytes));
  feed(*bad, bytes, 0, kLeafSize);
  const auto text = message_of(ErrorCode::data, [&] { feed(*bad, bytes, kLeafSize, kLeafSize); });
  EXPECT_TRUE(contains(text, "[1048576, +1048576)"));
  EXPECT_TRUE(contains(text, leaves[1]));
}

TEST(Sha256Tree, gives_its_leaves_to_those_who_ask) {
  std::string bytes = random_text(kLeafSize + 3);
  std::vector<std::string> seen;
  TreeOptions options;
  options.leaves = [&](const TensorInfo&, std::vector<std::string> leaves) {
    seen = std::move(leaves);
  };
  const auto decoder = sha256_tree(options)(tensor_of(bytes));
  feed(*decoder, bytes, 0, bytes.size());
  decoder->finish();
  EXPECT_EQ(seen, (std::vector<std::string>{hex(sha256(bytes.substr(0, kLeafSize))),
                                            hex(sha256(bytes.substr(kLeafSize)))}));
}

}  // namespace
}  // namespace inrush::test
