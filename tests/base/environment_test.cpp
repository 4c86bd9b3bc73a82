#include "inrush/base/environment.h"

#include <gtest/gtest.h>

namespace inrush {
namespace {

TEST(ProfilePath, follows_the_variables_in_order) {
  Environment environment{.profile = "", .cache_home = "/c", .home = "/h", .runtime_dir = ""};
  EXPECT_EQ(profile_path(environment), "/c/inrush/profile.json");
  environment.profile = "/elsewhere/p.json";
  EXPECT_EQ(profile_path(environment), "/elsewhere/p.json");
  environment.profile = "off";
  EXPECT_EQ(profile_path(environment), "");
}

TEST(ProfilePath, relative_folders_are_ignored) {
  EXPECT_EQ(profile_path({.profile = "", .cache_home = "c", .home = "/h", .runtime_dir = ""}),
            "/h/.cache/inrush/profile.json");
  EXPECT_EQ(profile_path({}), "");
}

}  // namespace
}  // namespace inrush
