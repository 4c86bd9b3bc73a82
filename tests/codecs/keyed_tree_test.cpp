#include "inrush/codecs/keyed_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "../files.h"

namespace inrush::test {
namespace {

std::span<std::byte> bytes_of(std::string& text) {
  return std::as_writable_bytes(std::span<char>(text));
}

std::string decoded(const KeyedTree& tree, std::string& text, uint64_t seed) {
  TensorInfo tensor;
  tensor.name = "w";
  tensor.size = text.size();
  std::vector<uint64_t> offsets;
  for (uint64_t at = 0; at < text.size(); at += kLeafSize) offsets.push_back(at);
  std::mt19937_64 random(seed);
  std::shuffle(offsets.begin(), offsets.end(), random);
  const auto decoder = tree.decoder()(tensor);
  for (const uint64_t at : offsets) {
    decoder->update(at, bytes_of(text).subspan(at, std::min(kLeafSize, text.size() - at)));
  }
  return decoder->finish();
}

TEST(KeyedTree, is_the_same_of_bytes_that_come_and_bytes_that_are_there) {
  const KeyedTree tree;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{kLeafSize}, size_t{3 * kLeafSize + 77}}) {
    std::string text = random_text(size, size);
    EXPECT_EQ(decoded(tree, text, 1), tree.digest(bytes_of(text))) << size;
    EXPECT_EQ(decoded(tree, text, 2), tree.digest(bytes_of(text))) << size;
  }
}

TEST(KeyedTree, every_bit_counts) {
  const KeyedTree tree;
  std::string text = random_text(2 * kLeafSize + 5, 7);
  const std::string whole = tree.digest(bytes_of(text));
  for (const size_t at : {size_t{0}, size_t{kLeafSize - 1}, size_t{kLeafSize}, text.size() - 1}) {
    for (const char bit : {1, 64}) {
      text[at] = static_cast<char>(text[at] ^ bit);
      EXPECT_NE(tree.digest(bytes_of(text)), whole) << at;
      text[at] = static_cast<char>(text[at] ^ bit);
    }
  }
  EXPECT_EQ(tree.digest(bytes_of(text)), whole);
  text.pop_back();
  EXPECT_NE(tree.digest(bytes_of(text)), whole);
}

TEST(KeyedTree, has_a_key_of_its_own) {
  std::string text = random_text(1000, 3);
  EXPECT_NE(KeyedTree().digest(bytes_of(text)), KeyedTree().digest(bytes_of(text)));
}

TEST(KeyedTree, decoders_outlive_it) {
  std::string text = random_text(kLeafSize + 9, 4);
  TensorInfo tensor;
  tensor.size = text.size();
  auto tree = std::make_unique<KeyedTree>();
  const std::string digest = tree->digest(bytes_of(text));
  const DecoderFactory factory = tree->decoder();
  tree.reset();
  const auto decoder = factory(tensor);
  decoder->update(0, bytes_of(text));
  EXPECT_EQ(decoder->finish(), digest);
}

}  // namespace
}  // namespace inrush::test
