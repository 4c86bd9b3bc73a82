#include "inrush/policy/registry.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "inrush/core/engine.h"
#include "tests/policy/places.h"

namespace inrush {
namespace {

namespace fs = std::filesystem;

Blob blob_of(uint64_t inode) {
  Blob blob;
  blob.name = "/m/model-" + std::to_string(inode);
  blob.size = 100;
  blob.identity = {1, inode, 100, 7, 7, ""};
  return blob;
}

class RegistryTest : public testing::Test {
 protected:
  RegistryTest() {
    char pattern[] = "/tmp/inrush-registry-XXXXXX";
    folder_ = ::mkdtemp(pattern);
  }
  ~RegistryTest() override {
    for (const pid_t child : children_) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
    fs::remove_all(folder_);
  }

  // A process that loads these blobs until it is killed; returns once it is registered.
  pid_t loading(const std::vector<Blob>& blobs) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const Registration registration(blobs, folder_);
      [[maybe_unused]] const auto written = ::write(ready[1], "x", 1);
      while (true) ::pause();
    }
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
    children_.push_back(child);
    return child;
  }
  void kill_hard(pid_t child) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    std::erase(children_, child);
  }
  // Lock files, without markers.
  [[nodiscard]] size_t files() const {
    size_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      const auto name = entry.path().filename();
      if (entry.is_regular_file() && name != "seen" && name != "swept") ++count;
    }
    return count;
  }
  // Keys that the registry knows of.
  [[nodiscard]] size_t keys() const {
    const auto is_folder = [](const fs::directory_entry& entry) { return entry.is_directory(); };
    return static_cast<size_t>(
        std::count_if(fs::directory_iterator(folder_), fs::directory_iterator(), is_folder));
  }
  void pass(std::chrono::minutes time) const {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) paths.push_back(entry);
    for (const auto& path : paths) fs::last_write_time(path, fs::last_write_time(path) - time);
  }

  std::string folder_;
  std::vector<Blob> blobs_ = {blob_of(1), blob_of(2)};
  std::vector<pid_t> children_;
};

TEST_F(RegistryTest, alone_it_sees_nobody) {
  const Registration registration(blobs_, folder_);
  EXPECT_EQ(registration.neighbours().loading, 0U);
  EXPECT_FALSE(registration.neighbours().loaded_recently);
}

TEST_F(RegistryTest, processes_see_each_other_until_they_are_killed) {
  const pid_t one = loading(blobs_);
  const pid_t two = loading(blobs_);
  const Registration registration(blobs_, folder_);
  EXPECT_EQ(registration.neighbours().loading, 2U);
  EXPECT_TRUE(registration.neighbours().loaded_recently);
  kill_hard(one);
  EXPECT_EQ(registration.neighbours().loading, 1U);
  kill_hard(two);
  EXPECT_EQ(registration.neighbours().loading, 0U);
  EXPECT_EQ(files(), 1U) << "what the killed left behind is removed";
}

TEST_F(RegistryTest, the_order_of_blobs_does_not_matter_and_other_blobs_do_not_count) {
  loading({blob_of(2), blob_of(1)});
  loading({blob_of(1), blob_of(3)});
  const Registration registration(blobs_, folder_);
  EXPECT_EQ(registration.neighbours().loading, 1U);
}

TEST_F(RegistryTest, a_file_that_was_rewritten_is_another_one) {
  loading(blobs_);
  blobs_[1].identity.mtime_ns = 8;
  const Registration registration(blobs_, folder_);
  EXPECT_EQ(registration.neighbours().loading, 0U);
  EXPECT_FALSE(registration.neighbours().loaded_recently);
}

TEST_F(RegistryTest, an_ended_load_is_remembered_for_an_hour) {
  { const Registration first(blobs_, folder_); }
  EXPECT_EQ(files(), 0U);
  {
    const Registration second(blobs_, folder_);
    EXPECT_TRUE(second.neighbours().loaded_recently);
  }
  pass(std::chrono::minutes(61));
  const Registration third(blobs_, folder_);
  EXPECT_FALSE(third.neighbours().loaded_recently);
}

TEST_F(RegistryTest, what_nobody_loads_any_more_is_removed_and_what_is_loaded_stays) {
  constexpr uint64_t kOthers = 50;
  for (uint64_t i = 10; i < 10 + kOthers; ++i) const Registration ended({{blob_of(i)}}, folder_);
  kill_hard(loading({blob_of(7)}));
  loading({blob_of(8)});
  const std::vector<Blob> own = {blob_of(9)};
  const Registration ours(own, folder_);
  EXPECT_EQ(keys(), kOthers + 3);
  pass(std::chrono::minutes(61));
  loading(blobs_);  // sweeps
  EXPECT_EQ(keys(), 3U);
  const Registration beside({{blob_of(8)}}, folder_);
  EXPECT_EQ(beside.neighbours().loading, 1U);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(static_cast<int>(Registration(own, folder_).neighbours().loading));
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 1) << "a sweep by another process took a lock away";
}

TEST_F(RegistryTest, thousands_of_other_checkpoints_hide_nobody) {
  for (int i = 0; i < 5000; ++i) fs::create_directory(folder_ + "/" + std::to_string(i));
  for (uint64_t i = 10; i < 30; ++i) loading({blob_of(i)});
  loading(blobs_);
  EXPECT_EQ(Registration(blobs_, folder_).neighbours().loading, 1U);
  EXPECT_EQ(Registration({{blob_of(20)}}, folder_).neighbours().loading, 1U);
}

TEST_F(RegistryTest, loads_that_begin_while_others_sweep_are_registered_all_the_same) {
  const pid_t sweeper = ::fork();
  if (sweeper == 0) {
    while (true) {  // an hour passes for every key, again and again
      for (const auto& entry : fs::directory_iterator(folder_)) {
        std::error_code gone;
        const auto old = fs::file_time_type::clock::now() - std::chrono::hours(2);
        fs::last_write_time(entry.path() / "seen", old, gone);
        fs::last_write_time(entry.path(), old, gone);
      }
      const Registration sweeps({{blob_of(100)}}, folder_);
      ::usleep(500);
    }
  }
  children_.push_back(sweeper);
  for (int i = 0; i < 200; ++i) {
    const Registration mine(blobs_, folder_);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(static_cast<int>(Registration(blobs_, folder_).neighbours().loading));
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_EQ(WEXITSTATUS(status), 1) << i;
  }
}

TEST_F(RegistryTest, two_loads_of_one_process_keep_their_locks) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto first = std::make_unique<Registration>(blobs_, folder_);
    auto second = std::make_unique<Registration>(blobs_, folder_);
    const bool alone = first->neighbours().loading == 0 && second->neighbours().loading == 0;
    second.reset();
    // The first one's lock must have survived the second's looking around and its end.
    const pid_t other = ::fork();
    if (other == 0) {
      const Registration outside(blobs_, folder_);
      ::_exit(outside.neighbours().loading == 1 ? 0 : 1);
    }
    int status = 0;
    ::waitpid(other, &status, 0);
    ::_exit(alone && status == 0 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(RegistryTest, a_forked_child_neither_counts_nor_ends_its_parents_load) {
  auto registration = std::make_unique<Registration>(blobs_, folder_);
  const pid_t child = ::fork();
  if (child == 0) {
    registration.reset();
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(files(), 1U);
  const int seen = testing_places::run_as(0, [&] {
    const Registration outside(blobs_, folder_);
    return static_cast<int>(outside.neighbours().loading);
  });
  // The grandchild is a child of the registered process, yet a process of its own.
  EXPECT_EQ(seen, 1);
}

TEST_F(RegistryTest, a_child_that_lives_on_does_not_keep_its_dead_parents_load_alive) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    const Registration registration(blobs_, folder_);
    const pid_t grandchild = ::fork();
    if (grandchild == 0) {
      while (true) ::pause();
    }
    [[maybe_unused]] const auto written = ::write(ready[1], &grandchild, sizeof grandchild);
    while (true) ::pause();
  }
  pid_t grandchild = 0;
  ASSERT_EQ(::read(ready[0], &grandchild, sizeof grandchild), ssize_t{sizeof grandchild});
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  const Registration registration(blobs_, folder_);
  EXPECT_EQ(registration.neighbours().loading, 0U);
  ::kill(grandchild, SIGKILL);
}

TEST_F(RegistryTest, a_folder_that_others_may_write_to_is_not_used) {
  ::chmod(folder_.c_str(), 0777);
  loading(blobs_);
  const Registration registration(blobs_, folder_);
  EXPECT_EQ(registration.neighbours().loading, 0U);
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(RegistryTest, a_planted_link_is_not_used) {
  const std::string link = folder_ + "-link";
  fs::create_symlink(folder_, link);
  const Registration registration(blobs_, link);
  EXPECT_TRUE(fs::is_empty(folder_));
  fs::remove(link);
}

TEST_F(RegistryTest, an_absent_place_registers_nothing) {
  const Registration registration(blobs_, "/proc/nowhere");
  EXPECT_EQ(registration.neighbours().loading, 0U);
}

TEST_F(RegistryTest, eight_processes_at_once_all_see_the_others) {
  for (int i = 0; i < 8; ++i) loading(blobs_);
  const Registration registration(blobs_, folder_);
  EXPECT_EQ(registration.neighbours().loading, 8U);
  const auto start = Clock::now();
  for (int i = 0; i < 100; ++i) [[maybe_unused]] const auto seen = registration.neighbours();
  const double each = std::chrono::duration<double, std::micro>(Clock::now() - start).count() / 100;
  std::printf("neighbours(): %.1f us with 8 others\n", each);
}

TEST(RegistryFolder, is_private) {
  const std::string folder = registry_folder();
  if (folder.empty()) GTEST_SKIP() << "no place for a registry here";
  struct stat status {};
  ASSERT_EQ(::stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 077, 0U);
  EXPECT_EQ(status.st_uid, ::geteuid());
}

}  // namespace
}  // namespace inrush
