#include "inrush/core/index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>

#include "inrush/core/error.h"

namespace inrush {
namespace {

TensorInfo tensor(const std::string& name, uint32_t blob, uint64_t offset, uint64_t size) {
  TensorInfo info;
  info.name = name;
  info.blob = blob;
  info.offset = offset;
  info.size = size;
  return info;
}

Blob blob(const std::string& name) {
  Blob value;
  value.name = name;
  return value;
}

std::vector<std::string> names_by_name(const Index& index) {
  std::vector<std::string> names;
  for (const uint32_t i : index.by_name) names.push_back(index.tensors[i].name);
  return names;
}

TEST(Index, puts_tensors_into_file_order_whatever_order_they_came_in) {
  Index index;
  index.blobs = {blob("b"), blob("a")};
  index.metadata = {{{{"of", "b"}}}, std::nullopt};
  index.tensors = {tensor("x", 0, 16, 4), tensor("w", 0, 8, 8), tensor("v", 1, 8, 4),
                   tensor("empty", 0, 16, 0)};
  index.finish();
  EXPECT_EQ(index.blobs[0].name, "a");
  EXPECT_FALSE(index.metadata[0].has_value());
  EXPECT_EQ(index.metadata[1]->at("of"), "b");
  std::vector<std::string> order;
  for (const auto& t : index.tensors) order.push_back(t.name);
  EXPECT_EQ(order, (std::vector<std::string>{"v", "w", "empty", "x"}));
  EXPECT_EQ(index.tensors[0].blob, 0U);
  EXPECT_EQ(index.tensors[1].blob, 1U);
}

TEST(Index, finds_every_name_and_no_other) {
  std::mt19937_64 random(7);
  for (const size_t count : {0U, 1U, 2U, 3U, 17U, 1000U}) {
    std::set<std::string> names;
    while (names.size() < count) names.insert(std::to_string(random() % 5000));
    std::vector<std::string> shuffled(names.begin(), names.end());
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    Index index;
    index.blobs = {blob("a")};
    for (size_t i = 0; i < count; ++i) index.tensors.push_back(tensor(shuffled[i], 0, i, 1));
    index.finish();
    EXPECT_EQ(names_by_name(index), std::vector<std::string>(names.begin(), names.end()));
    for (const auto& name : shuffled) {
      ASSERT_NE(index.find(name), nullptr);
      EXPECT_EQ(index.find(name)->name, name);
    }
    EXPECT_EQ(index.find("none"), nullptr);
    EXPECT_EQ(index.find(""), nullptr);
  }
}

TEST(Index, sorts_names_as_their_bytes_compare) {
  std::mt19937 random(5);
  const std::string letters("\0\1ab\x7f\x80\xff", 7);
  for (const std::string prefix : {"", "model.", "model.layers.0.mlp.experts."}) {
    std::set<std::string> names{prefix};
    while (names.size() < 500) {
      std::string name = prefix;
      for (size_t left = random() % 20; left > 0; --left)
        name += letters[random() % letters.size()];
      names.insert(name);
    }
    std::vector<std::string> shuffled(names.begin(), names.end());
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    Index index;
    index.blobs = {blob("a")};
    for (const auto& name : shuffled) {
      index.tensors.push_back(tensor(name, 0, 8 * index.tensors.size(), 8));
    }
    index.finish();
    EXPECT_EQ(names_by_name(index), std::vector<std::string>(names.begin(), names.end()));
  }
}

TEST(Index, names_both_files_of_a_tensor_that_stands_in_two) {
  Index index;
  index.blobs = {blob("/m/a.safetensors"), blob("/m/b.safetensors")};
  index.tensors = {tensor("x", 0, 8, 4), tensor("w", 1, 8, 4), tensor("x", 1, 12, 4)};
  try {
    index.finish();
    FAIL() << "no Error";
  } catch (const Error& error) {
    const std::string text = error.message();
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(ErrorCode::data));
    EXPECT_NE(text.find("\"x\""), std::string::npos) << text;
    EXPECT_NE(text.find("/m/a.safetensors"), std::string::npos) << text;
    EXPECT_NE(text.find("/m/b.safetensors"), std::string::npos) << text;
  }
}

TEST(Index, refuses_a_tensor_that_stands_twice_in_one_file) {
  Index index;
  index.blobs = {blob("/m/a.safetensors")};
  index.tensors = {tensor("x", 0, 8, 0), tensor("x", 0, 8, 4)};
  EXPECT_THROW(index.finish(), Error);
}

}  // namespace
}  // namespace inrush
