#include "inrush/policy/fallbacks.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace inrush {
namespace {

std::string instead_of(const Facts& facts, const std::string& what) {
  for (const Fallback& one : list_fallbacks(facts, nullptr)) {
    if (one.what == what) return one.instead + " because " + one.why;
  }
  return "";
}

TEST(Fallbacks, an_engine_that_works_has_none) {
  Facts facts;
  facts.engines = {{"uring", ""}, {"aio", ""}};
  EXPECT_EQ(instead_of(facts, "io_uring"), "");
  EXPECT_EQ(instead_of(facts, "Linux AIO"), "");
}

TEST(Fallbacks, name_the_next_engine_and_the_kernel_s_reason) {
  Facts facts;
  facts.engines = {{"uring", "forbidden"}, {"aio", ""}};
  EXPECT_EQ(instead_of(facts, "io_uring"), "Linux AIO because forbidden");
  facts.engines = {{"uring", "forbidden"}, {"aio", "unknown"}};
  EXPECT_EQ(instead_of(facts, "io_uring"), "positional reads on threads because forbidden");
  EXPECT_EQ(instead_of(facts, "Linux AIO"), "positional reads on threads because unknown");
}

TEST(Fallbacks, no_place_for_the_profile_is_one_unless_nobody_wants_it) {
  for (const char* name : {"INRUSH_PROFILE", "XDG_CACHE_HOME", "HOME"}) ::unsetenv(name);
  EXPECT_NE(instead_of({}, "the profile"), "");
  ::setenv("INRUSH_PROFILE", "off", 1);
  EXPECT_EQ(instead_of({}, "the profile"), "");
  ::setenv("INRUSH_PROFILE", "/dev/null/sub/profile.json", 1);
  EXPECT_NE(instead_of({}, "the profile").find("/dev/null"), std::string::npos);
  ::unsetenv("INRUSH_PROFILE");
}

}  // namespace
}  // namespace inrush
