#include "inrush/base/text.h"

#include <gtest/gtest.h>

namespace inrush {
namespace {

TEST(HasPart, is_about_whole_parts_between_slashes) {
  for (const char* path : {"..", "../a", "a/..", "a/../b", "/..", "a//../b"}) {
    EXPECT_TRUE(has_part(path, "..")) << path;
  }
  for (const char* path : {"", "a", "..a", "a..", "a/..b", ".../a", "a/b..", "/"}) {
    EXPECT_FALSE(has_part(path, "..")) << path;
  }
  EXPECT_TRUE(has_part("a/./b", "."));
  EXPECT_FALSE(has_part("a/../b", "."));
}

}  // namespace
}  // namespace inrush
