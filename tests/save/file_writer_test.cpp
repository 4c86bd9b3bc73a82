#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>
#include <vector>

#include "../files.h"
#include "../killed.h"
#include "inrush/base/fd.h"
#include "inrush/save.h"

namespace inrush::test {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

void write_all(const std::string& path, const std::string& bytes) {
  const auto writer = make_file_writer(path, true);
  writer->create(bytes.size());
  writer->write(0, bytes_of(bytes));
  writer->finish();
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename());
  }
  return names;
}

// A filesystem of a few MiB. Needs root.
class SmallDisk {
 public:
  explicit SmallDisk(const char* options) {
    mounted_ = ::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, options) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }
  [[nodiscard]] bool mounted() const { return mounted_; }
  [[nodiscard]] const Folder& folder() const { return folder_; }

 private:
  Folder folder_;
  bool mounted_ = false;
};

TEST(FileWriter, shows_nothing_under_the_name_before_the_end) {
  const Folder folder;
  const std::string bytes = random_text(100'000);
  const auto writer = make_file_writer(folder / "a", true);
  writer->create(bytes.size());
  writer->write(0, bytes_of(bytes));
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  writer->finish();
  EXPECT_EQ(folder.read("a"), bytes);
  EXPECT_EQ(folder.count(), 1U);
}

TEST(FileWriter, takes_pieces_in_any_order) {
  const Folder folder;
  const std::string bytes = random_text(30'000);
  const auto writer = make_file_writer(folder / "a", false);
  writer->create(bytes.size());
  for (const size_t at : {20'000U, 0U, 10'000U})
    writer->write(at, bytes_of(bytes).subspan(at, 10'000));
  writer->finish();
  EXPECT_EQ(folder.read("a"), bytes);
}

TEST(FileWriter, leaves_nothing_behind_when_it_is_aborted_or_forgotten) {
  const Folder folder;
  folder.write("a", "old");
  {
    const auto writer = make_file_writer(folder / "a", true);
    writer->create(1000);
    EXPECT_EQ(folder.count(), 2U);
    writer->abort();
    EXPECT_EQ(folder.count(), 1U);
    writer->abort();
    const auto forgotten = make_file_writer(folder / "a", true);
    forgotten->create(1000);
  }
  EXPECT_EQ(folder.count(), 1U);
  EXPECT_EQ(folder.read("a"), "old");
}

TEST(FileWriter, refuses_to_end_before_all_is_written_and_to_write_past_the_end) {
  const Folder folder;
  const std::string bytes = random_text(100);
  const auto writer = make_file_writer(folder / "a", true);
  EXPECT_THROW(writer->write(0, bytes_of(bytes)), Error);
  writer->create(101);
  writer->write(0, bytes_of(bytes));
  EXPECT_THROW(writer->finish(), Error);
  EXPECT_THROW(writer->write(2, bytes_of(bytes)), Error);
  EXPECT_THROW(writer->write(UINT64_MAX, bytes_of(bytes)), Error);
  EXPECT_THROW(writer->create(5), Error);
}

TEST(FileWriter, keeps_the_permissions_of_the_file_it_replaces) {
  const Folder folder;
  const std::string path = folder.write("a", "old");
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  write_all(path, "new");
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
}

TEST(FileWriter, leaves_the_old_bytes_to_those_who_have_them_mapped) {
  const Folder folder;
  const std::string old = random_text(8192, 1);
  const std::string path = folder.write("a", old);
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  void* mapped = ::mmap(nullptr, old.size(), PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  write_all(path, "short");
  EXPECT_EQ(std::string(static_cast<const char*>(mapped), old.size()), old);
  ::munmap(mapped, old.size());
  EXPECT_EQ(folder.read("a"), "short");
}

TEST(FileWriter, takes_names_of_the_greatest_length) {
  const Folder folder;
  const std::string name(255, 'n');
  write_all(folder / name, "x");
  EXPECT_EQ(folder.read(name), "x");
  EXPECT_THROW(write_all(folder / std::string(256, 'n'), "x"), Error);
  EXPECT_EQ(folder.count(), 1U);
}

TEST(FileWriter, refuses_what_is_no_regular_file_and_what_is_no_name) {
  const Folder folder;
  std::filesystem::create_directory(folder / "sub");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const char* name : {"sub", "pipe"}) {
    const auto text = message_of(ErrorCode::source, [&] { write_all(folder / name, "x"); });
    EXPECT_TRUE(contains(text, name));
  }
  EXPECT_THROW(write_all("/dev/null", "x"), Error);
  EXPECT_THROW(write_all(folder / "sub/", "x"), Error);
  EXPECT_THROW(write_all(folder / "gone/a", "x"), Error);
  EXPECT_EQ(folder.count(), 2U);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST(FileWriter, judges_its_place_before_anything_is_written) {
  const Folder folder;
  std::filesystem::create_directory(folder / "sub");
  const auto made = [&](const std::string& name) {
    return message_of(ErrorCode::source, [&] { make_file_writer(folder / name, true); });
  };
  EXPECT_TRUE(contains(made("sub"), "no regular file"));
  EXPECT_TRUE(contains(made("gone/a"), "No such file"));
  const SmallDisk disk("size=1m,ro");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs (needs root)";
  const auto text =
      message_of(ErrorCode::source, [&] { make_file_writer(disk.folder() / "a", true); });
  EXPECT_TRUE(contains(text, "Read-only"));
}

TEST(FileWriter, says_that_the_disk_is_full_before_it_writes) {
  const SmallDisk disk("size=1m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs (needs root)";
  const auto writer = make_file_writer(disk.folder() / "a", true);
  const auto text = message_of(ErrorCode::source, [&] { writer->create(4 << 20); });
  EXPECT_TRUE(contains(text, "No space left"));
  EXPECT_TRUE(contains(text, "4194304"));
  writer->abort();
  EXPECT_EQ(disk.folder().count(), 0U);
}

TEST(FileWriter, keeps_the_old_file_when_the_disk_has_no_room_for_the_new_one) {
  const SmallDisk disk("size=1m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs (needs root)";
  disk.folder().write("a", "old");
  message_of(ErrorCode::source, [&] { write_all(disk.folder() / "a", random_text(2 << 20)); });
  EXPECT_EQ(disk.folder().read("a"), "old");
  EXPECT_EQ(disk.folder().count(), 1U);
}

TEST(FileWriter, names_the_folder_in_which_nothing_may_be_written) {
  const SmallDisk disk("size=1m,ro");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs (needs root)";
  const auto text = message_of(ErrorCode::source, [&] { write_all(disk.folder() / "a", "x"); });
  EXPECT_TRUE(contains(text, disk.folder() / "a"));
  EXPECT_TRUE(contains(text, "Read-only"));
}

TEST(FileWriter, needs_permission) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  const Folder folder;
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 1;
    try {
      if (::setresuid(65534, 65534, 65534) == 0) write_all(folder / "a", "x");
    } catch (const Error& error) {
      const bool told = error.message().find("Permission denied") != std::string::npos;
      code = error.code() == ErrorCode::source && told ? 0 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(FileWriter, when_killed_leaves_the_old_file_and_at_most_one_temporary) {
  const Folder folder;
  folder.write("a.safetensors", "old");
  kill_in_the_middle([&](const auto& told) {
    const std::string part = random_text(4096);
    const auto writer = make_file_writer(folder / "a.safetensors", true);
    writer->create(1 << 20);
    writer->write(0, bytes_of(part));
    told();
  });
  EXPECT_EQ(folder.read("a.safetensors"), "old");
  const auto names = names_in(folder.path());
  ASSERT_EQ(names.size(), 2U);
  const auto& temporary = names[0] == "a.safetensors" ? names[1] : names[0];
  EXPECT_TRUE(temporary.starts_with(".a.safetensors.")) << temporary;
  EXPECT_TRUE(temporary.ends_with(".inrush-partial")) << temporary;
}

// Not in /tmp, which may be memory: where the sources are.
std::string disk() { return std::filesystem::current_path().string(); }

TEST(FileWriter, writes_past_the_page_cache_what_must_be_durable) {
  const Folder folder(disk());
  const std::string bytes = random_text((9 << 20) + 12345);
  const std::vector<SaveTensor> tensors = {{"a", Dtype::u8, {bytes.size()}, bytes_of(bytes)},
                                           {"b", Dtype::u8, {1000}, bytes_of(bytes).first(1000)}};
  for (const bool sync : {true, false}) {
    save_file(folder / (sync ? "direct" : "cached"), tensors, {.metadata = {}, .sync = sync});
  }
  const std::string written = folder.read("direct");
  EXPECT_TRUE(written.ends_with(bytes + bytes.substr(0, 1000)));
  EXPECT_EQ(written, folder.read("cached"));
  EXPECT_EQ(folder.count(), 2U);
}

TEST(FileWriter, takes_unaligned_writes_between_direct_ones) {
  const Folder folder(disk());
  const std::string bytes = random_text(10 << 20);
  const auto writer = make_file_writer(folder / "a", true);
  writer->create(bytes.size());
  const uint64_t odd = 5'000'001;
  writer->write(odd, bytes_of(bytes).subspan(odd));
  writer->write(0, bytes_of(bytes).first(odd));
  writer->finish();
  EXPECT_EQ(folder.read("a"), bytes);
}

TEST(FileWriter, killed_at_any_moment_leaves_the_old_file_or_the_new_one) {
  const Folder folder(disk());
  const std::string old = random_text(9 << 20, 1);
  const std::string fresh = random_text(9 << 20, 2);
  folder.write("a", old);
  std::mt19937_64 random(std::random_device{}());
  for (int round = 0; round < 40; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (;;) {
        write_all(folder / "a", fresh);
        write_all(folder / "a", old);
      }
    }
    ::usleep(static_cast<useconds_t>(random() % 30'000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::string found = folder.read("a");
    EXPECT_TRUE(found == old || found == fresh) << "round " << round;
  }
}

}  // namespace
}  // namespace inrush::test
