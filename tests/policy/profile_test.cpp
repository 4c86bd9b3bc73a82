#include "inrush/policy/profile.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "inrush/base/small_file.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

namespace fs = std::filesystem;

PathRate rate(double bytes_per_second, int64_t learnt_at = 1000) {
  return {bytes_per_second, 16, 4, 1, learnt_at};
}

class ProfileFileTest : public testing::Test {
 protected:
  ProfileFileTest() {
    char pattern[] = "/tmp/inrush-profile-XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/deep/er/profile.json";
    ::setenv("INRUSH_PROFILE", path_.c_str(), 1);
  }
  ~ProfileFileTest() override {
    ::setenv("INRUSH_PROFILE", "off", 1);
    fs::remove_all(folder_);
    fs::remove(folder_ + ".lock");
  }

  static Profile learnt(const std::string& id, double bytes_per_second) {
    Profile profile;
    profile.learn(id, "uring", rate(bytes_per_second));
    return profile;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(ProfileFileTest, what_is_saved_is_found_again) {
  save_profile(learnt("uuid-1", 2e9));
  const Profile again = load_profile();
  const PathRate* found = again.find("uuid-1", "uring");
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->bytes_per_second, 2e9);
  EXPECT_EQ(found->depth, 16U);
  EXPECT_EQ(found->streams, 4U);
  EXPECT_EQ(found->loads, 1U);
  EXPECT_EQ(again.find("uuid-1", "mmap"), nullptr);
  EXPECT_EQ(again.find("uuid-2", "uring"), nullptr);
}

TEST_F(ProfileFileTest, eight_writers_at_once_lose_nothing) {
  for (int writer = 0; writer < 8; ++writer) {
    if (::fork() == 0) {
      for (int i = 0; i < 5; ++i) save_profile(learnt("disk-" + std::to_string(writer), 1e9));
      ::_exit(0);
    }
  }
  while (::wait(nullptr) > 0) {
  }
  const Profile all = load_profile();
  EXPECT_EQ(all.rates.size(), 8U);
  for (int writer = 0; writer < 8; ++writer) {
    const PathRate* found = all.find("disk-" + std::to_string(writer), "uring");
    ASSERT_NE(found, nullptr) << writer;
    EXPECT_EQ(found->loads, 5U);
  }
  for (const auto& entry : fs::directory_iterator(fs::path(path_).parent_path())) {
    const std::string name = entry.path().filename();
    EXPECT_TRUE(name == "profile.json" || name == "profile.json.lock") << name;
  }
}

TEST_F(ProfileFileTest, a_broken_file_is_no_profile_and_is_replaced) {
  save_profile(learnt("a", 1e9));
  const std::string whole = read_small_file(path_);
  for (size_t size = 0; size < whole.size() - 1; ++size) {
    std::ofstream(path_) << whole.substr(0, size);
    EXPECT_TRUE(load_profile().rates.empty()) << size;
  }
  std::ofstream(path_) << "{\"schema_version\":1,\"rates\":{\"x\":{\"loads\":-1}}}";
  EXPECT_TRUE(load_profile().rates.empty());
  save_profile(learnt("b", 1e9));
  EXPECT_NE(load_profile().find("b", "uring"), nullptr);
}

TEST_F(ProfileFileTest, another_versions_file_is_left_alone) {
  fs::create_directories(fs::path(path_).parent_path());
  const std::string other = R"({"schema_version":2,"rates":[1,2]})";
  std::ofstream(path_) << other;
  EXPECT_TRUE(load_profile().rates.empty());
  save_profile(learnt("a", 1e9));
  EXPECT_EQ(read_small_file(path_), other);
}

TEST_F(ProfileFileTest, an_unwritable_place_is_no_error) {
  ::setenv("INRUSH_PROFILE", "/proc/nowhere/profile.json", 1);
  save_profile(learnt("a", 1e9));
  EXPECT_TRUE(load_profile().rates.empty());
  ::setenv("INRUSH_PROFILE", folder_.c_str(), 1);  // a folder
  save_profile(learnt("a", 1e9));
  EXPECT_TRUE(load_profile().rates.empty());
}

TEST_F(ProfileFileTest, off_and_no_home_keep_none) {
  ::setenv("INRUSH_PROFILE", "off", 1);
  save_profile(learnt("a", 1e9));
  EXPECT_TRUE(load_profile().rates.empty());
  ::unsetenv("INRUSH_PROFILE");
  const char* home = ::getenv("HOME");
  const std::string kept = home == nullptr ? "" : home;
  ::unsetenv("HOME");
  ::unsetenv("XDG_CACHE_HOME");
  save_profile(learnt("a", 1e9));
  EXPECT_TRUE(load_profile().rates.empty());
  ::setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  save_profile(learnt("a", 1e9));
  EXPECT_TRUE(fs::exists(folder_ + "/inrush/profile.json"));
  ::unsetenv("XDG_CACHE_HOME");
  if (!kept.empty()) ::setenv("HOME", kept.c_str(), 1);
}

TEST_F(ProfileFileTest, a_planted_link_is_not_followed_for_the_lock) {
  fs::create_directories(fs::path(path_).parent_path());
  const std::string victim = folder_ + "/victim";
  fs::create_symlink(victim, path_ + ".lock");
  save_profile(learnt("a", 1e9));
  EXPECT_FALSE(fs::exists(victim));
}

TEST(Profile, averages_towards_what_is_seen_now) {
  Profile profile;
  profile.learn("d", "mmap", rate(1e9));
  EXPECT_EQ(profile.find("d", "mmap")->bytes_per_second, 1e9);
  for (int i = 0; i < 30; ++i) profile.learn("d", "mmap", rate(3e9));
  EXPECT_NEAR(profile.find("d", "mmap")->bytes_per_second, 3e9, 1e7);
  EXPECT_EQ(profile.find("d", "mmap")->loads, 31U);
}

TEST(Profile, nonsense_teaches_nothing) {
  Profile profile;
  profile.learn("d", "mmap", rate(0));
  profile.learn("d", "mmap", rate(-5));
  profile.learn("d", "mmap", rate(1.0 / 0.0));
  profile.learn("d", "mmap", rate(1e15));
  EXPECT_TRUE(profile.rates.empty());
}

TEST(Profile, is_bounded_and_forgets_the_longest_unheard_of) {
  Profile profile;
  for (int i = 0; i < 1000; ++i)
    profile.learn("disk-" + std::to_string(i), "uring", rate(1e9, i + 1));
  EXPECT_EQ(profile.rates.size(), Profile::kMostRates);
  EXPECT_NE(profile.find("disk-999", "uring"), nullptr);
  EXPECT_EQ(profile.find("disk-0", "uring"), nullptr);
  EXPECT_LT(to_json(profile).size(), 64U << 10);
  EXPECT_EQ(parse_profile(to_json(profile)).rates.size(), Profile::kMostRates);
}

TEST(Profile, any_bytes_may_name_a_place) {
  Profile profile;
  const std::string odd = "nfs of \xff\xfe\"server\"\n:/\\x";
  profile.learn(odd, "pread_buffered", rate(1e9));
  const Profile again = parse_profile(to_json(profile));
  EXPECT_NE(again.find(odd, "pread_buffered"), nullptr);
}

}  // namespace
}  // namespace inrush
