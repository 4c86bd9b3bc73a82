#include "inrush/formats/serverlessllm.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <initializer_list>
#include <string>

#include "../files.h"
#include "inrush/core/error.h"
#include "inrush/formats/formats.h"
#include "inrush/stores/stores.h"

namespace inrush::test {
namespace {

// Folders rank_N, each with a tensor "w" of four bytes.
void add_ranks(const Folder& folder, std::initializer_list<int> ranks) {
  for (const int rank : ranks) {
    const std::string name = "rank_" + std::to_string(rank);
    folder.write(name + "/tensor.data_0", "wxyz");
    folder.write(name + "/tensor_index.json", R"({"w":[0,4,[4],[1],"torch.uint8"]})");
  }
}

size_t count_in(const Folder& folder, const std::string& below = "") {
  const auto place = find_place(folder.path() + below);
  return read_index(*place.store, {}).tensors.size();
}

std::string refusal_of(const Folder& folder) {
  try {
    count_in(folder);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data);
    return error.what();
  }
  return "none";
}

TEST(Ranks, are_all_that_are_there) {
  const Folder folder;
  add_ranks(folder, {0, 1, 2});
  EXPECT_EQ(count_in(folder), 3U);
  for (int rank = 3; rank < 70; ++rank) add_ranks(folder, {rank});
  EXPECT_EQ(count_in(folder), 70U);
}

TEST(Ranks, that_are_missing_before_others_are_named) {
  const Folder folder;
  add_ranks(folder, {0, 1, 3});
  EXPECT_EQ(refusal_of(folder),
            "open " + folder.path() +
                ": ranks up to rank_3/tensor_index.json are there, but 1 of them is not: "
                "rank_2/tensor_index.json");
  EXPECT_EQ(count_in(folder, "/rank_1"), 1U);
  EXPECT_EQ(count_in(folder, "/rank_3"), 1U);
  add_ranks(folder, {2, 31, 40});
  EXPECT_NE(refusal_of(folder).find("35 of them are not: rank_4/"), std::string::npos);
}

TEST(Ranks, begin_with_0) {
  const Folder folder;
  add_ranks(folder, {1});
  EXPECT_NE(refusal_of(folder).find("is not: rank_0/tensor_index.json"), std::string::npos);
}

TEST(Ranks, without_an_index_are_missing) {
  const Folder folder;
  add_ranks(folder, {0, 1, 2});
  std::filesystem::remove(folder.path() + "/rank_1/tensor_index.json");
  EXPECT_NE(refusal_of(folder).find("is not: rank_1/tensor_index.json"), std::string::npos);
}

}  // namespace
}  // namespace inrush::test
