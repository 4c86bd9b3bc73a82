#include "inrush/stores/stores.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "../files.h"
#include "inrush/base/cachestat.h"
#include "inrush/base/direct_io.h"

namespace inrush::test {
namespace {

std::string read_all(Store& store, const Blob& blob) {
  std::string bytes(blob.size, '\0');
  store.read(blob, 0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

TEST(Directory, lists_files_sorted_and_no_folders) {
  const Folder folder;
  folder.write("b", "22");
  folder.write("a", "1");
  folder.write("sub/c", "333");
  const auto place = find_place(folder.path());
  EXPECT_EQ(place.entry, "");
  EXPECT_EQ(place.store->list(), (std::vector<std::string>{"a", "b"}));
}

TEST(Directory, opens_through_symbolic_links_as_hub_snapshots_have_them) {
  const Folder folder;
  const std::string bytes = random_text(1000);
  folder.write("blobs/0123", bytes);
  std::filesystem::create_directory(folder / "snapshot");
  std::filesystem::create_symlink("../blobs/0123", folder / "snapshot/model.safetensors");
  const auto place = find_place(folder / "snapshot");
  EXPECT_EQ(place.store->list().at(0), "model.safetensors");
  const Blob blob = place.store->open("model.safetensors");
  EXPECT_EQ(blob.size, 1000U);
  EXPECT_EQ(blob.name, folder / "snapshot/model.safetensors");
  EXPECT_EQ(read_all(*place.store, blob), bytes);
}

// Writes a file, sees to it that none of its pages is cached, and opens it.
Blob open_cold(Store& store, const Folder& folder, const std::string& name,
               const std::string& bytes) {
  folder.write(name, bytes);
  const Fd fd(::open((folder / name).c_str(), O_RDONLY));
  EXPECT_EQ(::fsync(fd.get()), 0);
  EXPECT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  return store.open(name);
}

TEST(Directory, headers_of_large_cold_files_leave_no_small_pages_behind) {
  const Folder folder;
  const auto place = find_place(folder.path());
  const std::string bytes = random_text((2 << 20) + 77);
  const Blob blob = open_cold(*place.store, folder, "large", bytes);
  if (major(blob.identity.device) == 0 || cached_pages(blob.fd, 0, blob.size) != uint64_t{0}) {
    GTEST_SKIP() << "not on a block device, or the kernel does not tell what it caches";
  }
  for (const auto& [offset, size] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, 16384}, {8, 1}, {4095, 2}, {16384 + 8, 40000}, {blob.size - 5, 5}, {0, 0}}) {
    std::string part(size, '\0');
    place.store->read(blob, offset, std::as_writable_bytes(std::span(part)));
    EXPECT_EQ(part, bytes.substr(offset, size)) << offset;
  }
  const DirectIo direct = open_direct(blob.fd, blob.name);
  if (direct.fd) {
    EXPECT_EQ(cached_pages(blob.fd, 0, blob.size), uint64_t{0});
  }
  std::string beyond(10, '\0');
  EXPECT_THROW(place.store->read(blob, blob.size - 5, std::as_writable_bytes(std::span(beyond))),
               Error);
  // What is cached is taken from there.
  EXPECT_EQ(read_all(*place.store, blob), bytes);
  char page[4096];
  EXPECT_EQ(::pread(blob.fd, page, sizeof page, 0), ssize_t{sizeof page});
  EXPECT_EQ(read_all(*place.store, blob), bytes);
}

TEST(Directory, keeps_to_the_folder_it_opened_when_that_is_renamed) {
  const Folder folder;
  folder.write("m/a", "bytes");
  const auto place = find_place(folder / "m");
  std::filesystem::rename(folder / "m", folder / "n");
  EXPECT_EQ(read_all(*place.store, place.store->open("a")), "bytes");
}

TEST(Directory, a_file_is_the_same_whatever_its_mode_links_and_name) {
  const Folder folder;
  folder.write("m/a", "bytes");
  const auto place = find_place(folder / "m");
  const Blob blob = place.store->open("a");
  ASSERT_EQ(::chmod((folder / "m/a").c_str(), 0600), 0);
  EXPECT_EQ(place.store->identity(blob), blob.identity);
  std::filesystem::create_hard_link(folder / "m/a", folder / "m/b");
  EXPECT_EQ(place.store->identity(blob), blob.identity);
  std::filesystem::rename(folder / "m/a", folder / "m/c");
  EXPECT_EQ(place.store->identity(blob), blob.identity);
  std::filesystem::remove(folder / "m/b");
  EXPECT_EQ(place.store->identity(blob), blob.identity);
  std::filesystem::remove(folder / "m/c");
  EXPECT_NE(place.store->identity(blob), blob.identity);
}

TEST(Directory, a_file_that_is_written_to_or_replaced_is_another) {
  const Folder folder;
  folder.write("m/a", "bytes");
  folder.write("m/b", "other");
  const auto place = find_place(folder / "m");
  const Blob blob = place.store->open("a");
  const Blob other = place.store->open("b");
  folder.write("m/a", "BYTES");
  EXPECT_NE(place.store->identity(blob), blob.identity);
  std::filesystem::rename(folder / "m/a", folder / "m/b");
  EXPECT_NE(place.store->identity(other), other.identity);
}

TEST(Directory, refuses_names_that_lead_out_of_it) {
  const Folder folder;
  folder.write("m/a", "1");
  folder.write("secret", "2");
  const auto place = find_place(folder / "m");
  for (const char* name : {"../secret", "/etc/passwd", "x/../../secret", "", ".."}) {
    EXPECT_THROW(place.store->open(name), Error) << name;
  }
}

TEST(SingleFile, is_its_folder_and_an_entry_and_is_called_what_the_user_called_it) {
  const Folder folder;
  const std::string path = folder.write("a.safetensors", "12345678");
  const auto place = find_place(path);
  EXPECT_EQ(place.entry, "a.safetensors");
  EXPECT_EQ(place.store->open(place.entry).name, path);
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const auto relative = find_place("a.safetensors");
  EXPECT_EQ(relative.store->open(relative.entry).name, "a.safetensors");
  const auto dotted = find_place("./a.safetensors");
  EXPECT_EQ(dotted.store->open(dotted.entry).name, "./a.safetensors");
  std::filesystem::current_path(before);
}

TEST(FileUri, is_decoded_and_names_this_machine) {
  const Folder folder;
  folder.write("a b%.safetensors", "1");
  const auto place = find_place("file://" + folder.path() + "/a%20b%25.safetensors");
  EXPECT_EQ(place.entry, "a b%.safetensors");
  EXPECT_EQ(find_place("FILE://localhost" + folder.path()).store->list().size(), 1U);
  const auto refused = [&](const std::string& uri) {
    return message_of(ErrorCode::usage, [&] { find_place(uri); });
  };
  EXPECT_TRUE(contains(refused("file://host/x"), "host"));
  EXPECT_TRUE(contains(refused("file:///a%2"), "%"));
  EXPECT_TRUE(contains(refused("file:///a%00b"), "NUL"));
}

TEST(FindPlace, says_who_resolves_what_and_knows_no_other_schemes) {
  const auto text = message_of(ErrorCode::usage, [] { find_place("hf://somewhere/model"); });
  EXPECT_TRUE(contains(text, "hf://somewhere/model"));
  EXPECT_TRUE(contains(text, "huggingface_hub"));
  EXPECT_TRUE(contains(message_of(ErrorCode::usage, [] { find_place("ftp://x"); }), "\"ftp\""));
}

TEST(FindPlace, names_what_is_not_there) {
  const auto text = message_of(ErrorCode::source, [] { find_place("/no/such/folder"); });
  EXPECT_TRUE(contains(text, "/no/such/folder"));
  EXPECT_TRUE(contains(text, "No such file"));
}

TEST(Open, never_waits_on_a_pipe_or_a_device) {
  const Folder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const auto place = find_place(folder.path());
  EXPECT_TRUE(contains(message_of(ErrorCode::source, [&] { place.store->open("pipe"); }), "pipe"));
  std::filesystem::create_symlink("/dev/zero", folder / "zero");
  EXPECT_TRUE(
      contains(message_of(ErrorCode::source, [&] { place.store->open("zero"); }), "device"));
  std::filesystem::create_directory(folder / "sub");
  EXPECT_TRUE(contains(message_of(ErrorCode::source, [&] { place.store->open("sub"); }), "folder"));
}

TEST(Open, explains_a_link_to_nothing_and_a_link_to_itself) {
  const Folder folder;
  std::filesystem::create_symlink("../blobs/gone", folder / "model.safetensors");
  std::filesystem::create_symlink("loop", folder / "loop");
  const auto place = find_place(folder.path());
  const auto text = message_of(ErrorCode::source, [&] { place.store->open("model.safetensors"); });
  EXPECT_TRUE(contains(text, "symbolic link"));
  const auto again = message_of(ErrorCode::source, [&] {
    const auto single = find_place(folder / "model.safetensors");
    single.store->open(single.entry);
  });
  EXPECT_TRUE(contains(again, "symbolic link"));
  EXPECT_TRUE(
      contains(message_of(ErrorCode::source, [&] { place.store->open("loop"); }), "itself"));
}

// In a child, because the limit and the user are the whole process's.
int exit_code_of(const std::function<bool()>& holds) {
  const pid_t child = ::fork();
  if (child == 0) {
    bool good = false;
    try {
      good = holds();
    } catch (...) {
    }
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool throws(ErrorCode code, const std::string& part, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code() == code && error.message().find(part) != std::string::npos;
  }
  return false;
}

TEST(Open, says_what_to_change_when_the_process_has_no_descriptor_left) {
  const Folder folder;
  folder.write("a", "1");
  EXPECT_EQ(exit_code_of([&] {
              const auto place = find_place(folder.path());
              // UBSan needs a descriptor to look at an object the first time: so an error is thrown
              // before there is none left, and some are there again when all is taken down.
              if (!throws(ErrorCode::source, "b", [&] { place.store->open("b"); })) return false;
              rlimit usual{};
              ::getrlimit(RLIMIT_NOFILE, &usual);
              const rlimit few{16, usual.rlim_max};
              ::setrlimit(RLIMIT_NOFILE, &few);
              std::vector<Blob> blobs;
              const bool said = throws(ErrorCode::memory, "ulimit -n", [&] {
                for (int i = 0; i < 100; ++i) blobs.push_back(place.store->open("a"));
              });
              ::setrlimit(RLIMIT_NOFILE, &usual);
              return said;
            }),
            0);
}

TEST(Open, names_who_may_not_read) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  const Folder folder;
  const std::string path = folder.write("a", "1");
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
  EXPECT_EQ(exit_code_of([&] {
              if (::setresuid(65534, 65534, 65534) != 0) return false;
              const auto place = find_place(path);
              return throws(ErrorCode::source, "65534", [&] { place.store->open(place.entry); });
            }),
            0);
}

TEST(Identity, changes_when_the_file_does) {
  const Folder folder;
  folder.write("a", "1234");
  const auto place = find_place(folder.path());
  const Blob blob = place.store->open("a");
  EXPECT_EQ(place.store->identity(blob), blob.identity);
  ASSERT_EQ(::truncate((folder / "a").c_str(), 2), 0);
  EXPECT_NE(place.store->identity(blob), blob.identity);
}

TEST(Read, of_more_than_there_is_names_file_and_range) {
  const Folder folder;
  const std::string path = folder.write("a", "1234");
  const auto place = find_place(folder.path());
  const Blob blob = place.store->open("a");
  std::string target(8, 'x');
  const auto text = message_of(ErrorCode::data, [&] {
    place.store->read(blob, 2, std::as_writable_bytes(std::span(target)));
  });
  EXPECT_TRUE(contains(text, path));
  EXPECT_TRUE(contains(text, "[2, +8)"));
}

TEST(FileList, has_the_paths_as_given) {
  const Folder one;
  const Folder two;
  const std::string a = one.write("a", "1");
  const std::string b = two.write("b", "22");
  const auto store = make_file_list({b, a});
  ASSERT_EQ(store->list().size(), 2U);
  EXPECT_EQ(read_all(*store, store->open(b)), "22");
  EXPECT_EQ(store->open(a).name, a);
  EXPECT_THROW(store->open("c"), Error);
  EXPECT_THROW(make_file_list({}), Error);
  EXPECT_THROW(make_file_list({a, a}), Error);
  EXPECT_THROW(make_file_list({a, one.path()}), Error);
  EXPECT_THROW(make_file_list({a, one / "gone"}), Error);
}

}  // namespace
}  // namespace inrush::test
