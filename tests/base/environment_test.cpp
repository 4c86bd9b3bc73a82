#include "inrush/base/environment.h"

#include <gtest/gtest.h>

namespace inrush {
namespace {

TEST(ProfilePath, follows_the_variables_in_order) {
  Environment environment;
  environment.cache_home = "/c";
  environment.home = "/h";
  EXPECT_EQ(profile_path(environment), "/c/inrush/profile.json");
  environment.profile = "/elsewhere/p.json";
  EXPECT_EQ(profile_path(environment), "/elsewhere/p.json");
  environment.profile = "off";
  EXPECT_EQ(profile_path(environment), "");
}

TEST(ProfilePath, relative_folders_are_ignored) {
  Environment environment;
  environment.cache_home = "c";  // relative: as if it were not there
  environment.home = "/h";
  EXPECT_EQ(profile_path(environment), "/h/.cache/inrush/profile.json");
  EXPECT_EQ(profile_path({}), "");
}

}  // namespace
}  // namespace inrush
