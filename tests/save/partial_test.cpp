#include "inrush/save/partial.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "../files.h"
#include "../killed.h"
#include "inrush/base/fd.h"
#include "inrush/save.h"

namespace inrush::test {
namespace {

std::set<std::string> entries_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename());
  }
  return names;
}

std::vector<SaveTensor> tensors_of(const std::string& bytes) {
  return {{"a", Dtype::u8, {bytes.size()}, std::as_bytes(std::span(bytes))},
          {"b", Dtype::u8, {bytes.size()}, std::as_bytes(std::span(bytes))}};
}

TEST(Partial, of_a_killed_writer_goes_with_the_next_save_of_that_name) {
  const Folder folder;
  const std::string bytes = random_text(5000);
  for (const char* name : {"a", "a", "b"}) {
    kill_in_the_middle([&](const auto& told) {
      const auto writer = make_file_writer(folder / name, true);
      writer->create(1 << 20);
      told();
    });
  }
  // The second writer of "a" removed what the first had left.
  EXPECT_EQ(folder.count(), 2U);
  save_file(folder / "a", tensors_of(bytes), {});
  const auto names = entries_in(folder.path());
  ASSERT_EQ(names.size(), 2U);
  EXPECT_TRUE(names.contains("a"));
  EXPECT_TRUE(names.begin()->starts_with(".b.")) << *names.begin();
}

TEST(Partial, of_a_running_writer_is_left_alone) {
  const Folder folder;
  const std::string bytes = random_text(100'000);
  const auto running = make_file_writer(folder / "a", true);
  running->create(bytes.size());
  running->write(0, std::as_bytes(std::span(bytes)).first(50'000));
  save_file(folder / "a", tensors_of("x"), {});
  EXPECT_EQ(folder.count(), 2U);
  running->write(50'000, std::as_bytes(std::span(bytes)).subspan(50'000));
  running->finish();
  EXPECT_EQ(folder.read("a"), bytes);
  EXPECT_EQ(folder.count(), 1U);
}

TEST(Partial, is_known_by_all_of_its_name_and_its_kind) {
  const Folder folder;
  std::set<std::string> others = {
      ".a.0123456789abcdef.inrush-partial2", ".a.0123456789abcdeg.inrush-partial",
      ".b.0123456789abcdef.inrush-partial",  ".a.b.0123456789abcdef.inrush-partial",
      ".0123456789abcdef.inrush-partial",    ".a.inrush-partial",
      "a.0123456789abcdef.inrush-partial"};
  for (const std::string& name : others) folder.write(name, "x");
  ASSERT_EQ(::mkfifo((folder / ".a.2123456789abcdef.inrush-partial").c_str(), 0600), 0);
  std::filesystem::create_symlink("nowhere", folder / ".a.3123456789abcdef.inrush-partial");
  folder.write(".a.1123456789abcdef.inrush-partial", "x");
  save_file(folder / "a", tensors_of("x"), {});
  others.insert({"a", ".a.2123456789abcdef.inrush-partial", ".a.3123456789abcdef.inrush-partial"});
  EXPECT_EQ(entries_in(folder.path()), others);
}

TEST(Partial, folder_of_killed_shards_goes_with_the_next_save) {
  const Folder folder;
  const std::string bytes = random_text(5000);
  kill_in_the_middle([&](const auto& told) {
    auto tensors = tensors_of(bytes);
    tensors[1].read = [&](uint64_t, std::span<std::byte>) { told(); };
    ShardOptions options;
    options.max_shard_size = 6000;
    save_sharded(folder.path(), std::move(tensors), options);
  });
  ASSERT_EQ(folder.count(), 1U);
  // A folder that somebody holds, and one that nobody does.
  const std::string held = folder / ".0123456789abcdef.inrush-partial";
  std::filesystem::create_directory(held);
  const Fd holder(::open(held.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(hold_partial(holder.get()));
  folder.write(".0123456789abcdef.inrush-partial/file", "x");
  const auto names = save_sharded(folder.path(), tensors_of(bytes), {});
  std::set<std::string> expected(names.begin(), names.end());
  expected.insert(".0123456789abcdef.inrush-partial");
  EXPECT_EQ(entries_in(folder.path()), expected);
  EXPECT_TRUE(std::filesystem::exists(held + "/file"));
}

TEST(Partial, that_was_taken_away_is_not_held) {
  const Folder folder;
  const std::string path = folder.write("a", "x");
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd other(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(hold_partial(fd.get()));
  EXPECT_FALSE(hold_partial(other.get()));
  std::filesystem::remove(path);
  EXPECT_FALSE(hold_partial(fd.get()));
}

TEST(Partial, writers_of_one_name_at_once_all_end_well) {
  const Folder folder;
  const std::string bytes = random_text(20'000);
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    int code = 0;
    try {
      for (int round = 0; round < 100; ++round) {
        save_file(folder / "a", tensors_of(bytes), {.metadata = {}, .sync = false});
      }
    } catch (const Error&) {
      code = 1;
    }
    ::_exit(code);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(folder.count(), 1U);
  EXPECT_TRUE(folder.read("a").ends_with(bytes + bytes));
}

}  // namespace
}  // namespace inrush::test
