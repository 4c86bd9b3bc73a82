// What one engine, or the table of them, does beyond what all engines do.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "inrush/base/leases.h"
#include "inrush/engines/blocking.h"
#include "inrush/engines/local_files.h"
#include "tests/engines/sandbox.h"
#include "tests/engines/ways.h"

namespace inrush::testing {
namespace {

TEST(EngineTable, names_are_unique_and_found) {
  std::map<std::string, int> names;
  for (const EngineRow& row : engine_table()) {
    EXPECT_EQ(++names[row.name], 1) << row.name;
    EXPECT_EQ(find_engine(row.name), &row);
    EXPECT_NE(std::string(row.summary), "");
  }
  EXPECT_EQ(find_engine("punched_cards"), nullptr);
}

TEST(EngineTable, an_engine_that_says_it_is_usable_can_be_made) {
  for (const EngineRow& row : engine_table()) {
    if (!row.unusable().empty()) continue;
    if (std::string_view(row.name) == "cufile") continue;  // asks for a driver when it is made
    const auto engine = row.make({});
    EXPECT_EQ(std::string(engine->traits().name), row.name);
  }
}

// What an engine says of itself where this system call fails with this errno.
std::string reason_where(const char* engine, unsigned call, unsigned error_number) {
  return in_sandbox({.call = call, .error_number = error_number, .third = {}},
                    [&] { return find_engine(engine)->unusable(); });
}

TEST(EngineTable, a_sandbox_that_forbids_an_engine_is_named_as_the_reason) {
  const auto has = [](const std::string& said, const char* words) {
    EXPECT_NE(said.find(words), std::string::npos) << said;
  };
  const std::string forbidden = reason_where("uring", SYS_io_uring_setup, EPERM);
  if (forbidden == kNoSandbox) GTEST_SKIP() << forbidden;
  has(forbidden, "Operation not permitted (sysctl kernel.io_uring_disabled, or a seccomp");
  has(reason_where("uring", SYS_io_uring_setup, ENOSYS), "has no io_uring");
  has(reason_where("uring", SYS_io_uring_setup, ENOMEM), "RLIMIT_MEMLOCK");
  has(reason_where("aio", SYS_io_setup, ENOSYS), "has no Linux AIO");
}

class DirectOnly : public ::testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Engine> make() {
    EngineOptions options;
    options.direct = true;
    return find_engine(GetParam())->make(options);
  }
};

TEST_P(DirectOnly, a_filesystem_without_direct_io_is_refused_with_the_reason) {
  const Blob blob = open_blob("/proc/version");
  try {
    make()->open(blob);
    ADD_FAILURE() << "/proc was opened with O_DIRECT";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::source);
    EXPECT_NE(error.message().find(std::string("open /proc/version via ") + GetParam() +
                                   ": no direct I/O"),
              std::string::npos)
        << error.what();
  }
}

TEST_P(DirectOnly, tmpfs_is_read_or_refused_with_the_reason) {
  const Folder folder("/dev/shm");
  const Bytes bytes = random_bytes(100'003, 1);
  const Blob blob = open_blob(folder.write("a", bytes));
  auto engine = make();
  try {
    engine->open(blob);
  } catch (const Error& error) {  // before Linux 6.6
    EXPECT_NE(error.message().find("no direct I/O"), std::string::npos) << error.what();
    return;
  }
  Arena arena(blob.size);
  const auto reads = shredded(engine->traits(), blob, arena.data());
  for (const auto& [read, error] : drive(*engine, reads).failed) ADD_FAILURE() << error.what();
  EXPECT_EQ(std::memcmp(arena.data(), bytes.data(), bytes.size()), 0);
}

TEST_P(DirectOnly, alignments_are_the_strictest_of_the_opened_files) {
  const Folder disk;
  const Folder memory("/dev/shm");
  auto engine = make();
  try {
    engine->open(open_blob(disk.write("a", random_bytes(8192, 1))));
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  const EngineTraits one = engine->traits();
  try {
    engine->open(open_blob(memory.write("b", random_bytes(8192, 1))));
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  EXPECT_GE(engine->traits().offset_align, one.offset_align);
  EXPECT_GE(engine->traits().memory_align, one.memory_align);
}

TEST_P(DirectOnly, nothing_is_left_in_the_page_cache) {
  const Folder folder;
  const Blob blob = open_blob(folder.write("a", random_bytes(kMiB, 1)));
  drop_pages(blob);
  auto engine = make();
  try {
    engine->open(blob);
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  Arena arena(blob.size);
  EXPECT_TRUE(drive(*engine, shredded(engine->traits(), blob, arena.data())).failed.empty());
  void* view = ::mmap(nullptr, blob.size, PROT_READ, MAP_PRIVATE, blob.fd, 0);
  std::vector<unsigned char> resident(blob.size / static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
  ASSERT_EQ(::mincore(view, blob.size, resident.data()), 0);
  ::munmap(view, blob.size);
  EXPECT_EQ(std::count_if(resident.begin(), resident.end(), [](auto page) { return page & 1; }), 0);
}

INSTANTIATE_TEST_SUITE_P(Engines, DirectOnly, ::testing::Values("uring", "aio", "pread"),
                         [](const auto& name) { return std::string(name.param); });

TEST(Mmap, direct_is_refused) {
  const Folder folder;
  EngineOptions options;
  options.direct = true;
  const auto engine = find_engine("mmap")->make(options);
  const Blob blob = open_blob(folder.write("a", random_bytes(10, 1)));
  EXPECT_THROW(engine->open(blob), Error);
}

// Pages of this memory that the page tables show: touching them is no fault.
size_t pages_present(const std::byte* data, uint64_t size) {
  const Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<uint64_t> entries(size / page);
  const auto at = static_cast<off_t>(reinterpret_cast<uintptr_t>(data) / page * 8);
  const ssize_t count = ::pread(pagemap.get(), entries.data(), entries.size() * 8, at);
  EXPECT_EQ(count, static_cast<ssize_t>(entries.size() * 8));
  return static_cast<size_t>(
      std::count_if(entries.begin(), entries.end(), [](uint64_t entry) { return entry >> 63; }));
}

class MappedPages : public ::testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Mmap, MappedPages, ::testing::Bool(),
                         [](const auto& huge) { return huge.param ? "huge" : "small"; });

TEST_P(MappedPages, that_were_read_are_in_the_page_tables) {
  const Folder folder;
  const Bytes bytes = random_bytes(8 * kMiB, 1);
  const Blob blob = open_blob(folder.write("a", bytes));
  drop_pages(blob);
  const auto engine = find_engine("mmap")->make({.huge_pages = GetParam()});
  engine->open(blob);
  Arena arena(blob.size, blob.fd);
  Region region;
  region.data = arena.data();
  region.size = blob.size;
  region.backing = Backing::mapping;
  engine->attach(region);
  const auto reads = shredded(engine->traits(), blob, arena.data(), 2 * kMiB);
  EXPECT_TRUE(drive(*engine, reads).failed.empty());
  EXPECT_EQ(pages_present(arena.data(), blob.size), blob.size / ::sysconf(_SC_PAGESIZE));
}

// A file mapped by huge pages, read under a refusal; "ok", or what went wrong.
std::string read_mapped_where(const Refusal& refusal) {
  const Folder folder;
  const Bytes bytes = random_bytes(3 * kMiB + 5, 1);
  const Blob blob = open_blob(folder.write("a", bytes));
  drop_pages(blob);
  return in_sandbox(refusal, [&]() -> std::string {
    const auto engine = find_engine("mmap")->make({.huge_pages = true});
    engine->open(blob);
    const Arena arena(blob.size, blob.fd);
    Region region;
    region.data = arena.data();
    region.size = blob.size;
    region.backing = Backing::mapping;
    engine->attach(region);
    const auto reads = shredded(engine->traits(), blob, arena.data(), kMiB);
    const Outcome outcome = drive(*engine, reads);
    if (!outcome.failed.empty()) return outcome.failed[0].second.message();
    return std::memcmp(arena.data(), bytes.data(), bytes.size()) == 0 ? "ok" : "wrong bytes";
  });
}

TEST(Mmap, kernels_without_populate_are_read_by_pread) {
  constexpr unsigned kPopulateRead = 22;
  const std::string said =
      read_mapped_where({.call = SYS_madvise, .error_number = EINVAL, .third = kPopulateRead});
  if (said == kNoSandbox) GTEST_SKIP() << said;
  EXPECT_EQ(said, "ok");
}

TEST(Mmap, kernels_without_huge_pages_are_read_ahead) {
  const std::string said =
      read_mapped_where({.call = SYS_madvise, .error_number = EINVAL, .third = MADV_HUGEPAGE});
  if (said == kNoSandbox) GTEST_SKIP() << said;
  EXPECT_EQ(said, "ok");
}

TEST(Mmap, a_target_that_is_only_partly_mapped_is_read) {
  const Folder folder;
  const Bytes bytes = random_bytes(kMiB, 1);
  const Blob blob = open_blob(folder.write("a", bytes));
  const auto engine = find_engine("mmap")->make({});
  engine->open(blob);
  const Arena arena(blob.size);
  constexpr int kFlags = MAP_PRIVATE | MAP_FIXED;
  ASSERT_NE(::mmap(arena.data(), 65536, PROT_READ | PROT_WRITE, kFlags, blob.fd, 0), MAP_FAILED);
  Region region;
  region.data = arena.data();
  region.size = 65536;
  region.backing = Backing::mapping;
  engine->attach(region);
  constexpr uint64_t kBefore = 60000;
  const Read read{.tag = 1,
                  .file = 0,
                  .offset = kBefore,
                  .size = 131072,
                  .required = 131072,
                  .target = arena.data() + kBefore};
  EXPECT_TRUE(drive(*engine, {read}).failed.empty());
  // What was mapped shows the file still, and nothing behind the read was touched.
  EXPECT_EQ(std::memcmp(arena.data(), bytes.data(), kBefore + 131072), 0);
  EXPECT_EQ(arena.data()[kBefore + 131072], std::byte{0});
}

TEST(LocalFiles, a_descriptor_of_the_stores_is_lent_to_one_stream_at_a_time) {
  const Blob blob = open_blob("/proc/self/exe");
  EngineOptions options;
  options.lent = std::make_shared<Leases>();
  const auto descriptor = [&](LocalFiles& files) {
    return files.descriptor(files.open(blob))->get();
  };
  auto first = std::make_unique<LocalFiles>("first", options, kMiB);
  LocalFiles second("second", options, kMiB);
  EXPECT_EQ(descriptor(*first), blob.fd);
  EXPECT_NE(descriptor(second), blob.fd);
  first.reset();
  LocalFiles third("third", options, kMiB);
  EXPECT_EQ(descriptor(third), blob.fd) << "given back, and open still";
  EXPECT_NE(::fcntl(blob.fd, F_GETFD), -1);
}

// A source that throws what it should not.
class Thrower final : public BlockingSource {
 public:
  [[nodiscard]] EngineTraits traits() const override { return {}; }
  uint32_t open(const Blob&) override { return 0; }
  void accept(std::span<const Read>, size_t) override {}
  std::optional<Error> read(const Read& read, const std::atomic<bool>&) override {
    if (read.tag == 1) throw Error(ErrorCode::data, "thrown, not returned");
    throw std::bad_alloc();
  }
};

TEST(Blocking, what_the_function_throws_is_the_reads_error) {
  const auto engine = make_blocking_engine(std::make_shared<Thrower>(), -1, 2);
  const Read reads[] = {{.tag = 1}, {.tag = 2}};
  engine->submit(reads);
  const auto seen = complete(*engine, 2);
  EXPECT_EQ(seen.at(1)->code(), ErrorCode::data);
  EXPECT_EQ(seen.at(2)->code(), ErrorCode::memory);
}

}  // namespace
}  // namespace inrush::testing
