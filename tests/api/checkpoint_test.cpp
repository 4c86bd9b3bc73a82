#include "inrush/checkpoint.h"

#include <gtest/gtest.h>

#include "../files.h"

namespace inrush::test {
namespace {

TEST(Checkpoint, of_several_paths_is_one) {
  const Folder one;
  const Folder two;
  const auto a = one.write("a.safetensors", file_with({"a"}));
  const auto b = two.write("b.safetensors", file_with({"b"}));
  const auto checkpoint = Checkpoint::open(std::vector<std::string>{b, a});
  EXPECT_EQ(checkpoint.index().tensors.size(), 2U);
  EXPECT_EQ(Checkpoint::open(std::vector<std::string>{a}).index().blobs.at(0).name, a);
  const auto readme = one.write("README.md", "words that are no weights");
  const auto text = message_of(ErrorCode::data, [&] {
    Checkpoint::open(std::vector<std::string>{a, readme});
  });
  EXPECT_TRUE(contains(text, "README.md"));
}

}  // namespace
}  // namespace inrush::test
