#include "inrush/policy/filesystem.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "inrush/base/filesystem.h"
#include "tests/policy/folders.h"
#include "tests/policy/places.h"

namespace inrush {
namespace {

using namespace testing_places;

FilesystemFact ask_in(Folder& folder) {
  folder.put("f", 1U << 20);
  folder.mount();
  return folder.refusal.empty() ? ask_filesystem(open_blob(folder.path("f"))) : FilesystemFact();
}

TEST(FilesystemTable, rows_are_unique_and_consistent) {
  std::set<uint64_t> magics;
  for (const FilesystemKind& kind : filesystem_table()) {
    EXPECT_TRUE(magics.insert(kind.magic).second) << kind.type;
    EXPECT_FALSE(kind.may_map && kind.sequential) << kind.type;
    EXPECT_FALSE(kind.memory && kind.sequential) << kind.type;
  }
}

TEST(FilesystemFacts, a_tmpfs_is_memory) {
  Folder folder("tmpfs");
  const FilesystemFact fact = ask_in(folder);
  if (!folder.refusal.empty()) GTEST_SKIP() << folder.refusal;
  EXPECT_EQ(fact.type, "tmpfs");
  EXPECT_EQ(fact.id, "tmpfs");
  EXPECT_TRUE(fact.memory);
  EXPECT_TRUE(fact.may_map);
  EXPECT_FALSE(fact.direct);
}

TEST(FilesystemFacts, an_overlay_maps_but_hides_its_pages) {
  Folder folder("overlay");
  const FilesystemFact fact = ask_in(folder);
  if (!folder.refusal.empty()) GTEST_SKIP() << folder.refusal;
  EXPECT_EQ(fact.type, "overlay");
  EXPECT_EQ(fact.id, "overlay");
  EXPECT_TRUE(fact.may_map);
  EXPECT_FALSE(fact.own_pages);
  EXPECT_FALSE(fact.memory);
}

TEST(FilesystemFacts, a_squashfs_has_no_direct_io) {
  Folder folder("squashfs");
  const FilesystemFact fact = ask_in(folder);
  if (!folder.refusal.empty()) GTEST_SKIP() << folder.refusal;
  EXPECT_EQ(fact.type, "squashfs");
  EXPECT_TRUE(fact.may_map);
  EXPECT_FALSE(fact.direct);
  EXPECT_FALSE(fact.id.empty());
}

TEST(FilesystemFacts, direct_io_is_told_with_its_alignment) {
  Folder folder("plain");
  const FilesystemFact fact = ask_in(folder);
  EXPECT_FALSE(fact.type.empty());
  EXPECT_FALSE(fact.id.empty());
  if (!fact.direct) GTEST_SKIP() << "no direct I/O in the temporary folder";
  EXPECT_GE(fact.direct_memory_align, 1U);
  EXPECT_GE(fact.direct_offset_align, 512U);
}

TEST(FilesystemFacts, the_id_of_a_place_stays_the_same) {
  Folder one("plain");
  Folder two("plain");
  EXPECT_EQ(ask_in(one).id, ask_in(two).id);
}

TEST(FilesystemFacts, a_blob_that_is_no_local_file_promises_nothing) {
  const FilesystemFact fact = ask_filesystem(Blob());
  EXPECT_FALSE(fact.may_map);
  EXPECT_FALSE(fact.direct);
}

TEST(MountOf, names_the_mount_of_a_file) {
  const Fd fd(::open("/proc/self/status", O_RDONLY));
  EXPECT_EQ(mount_of(fd.get()).type, "proc");
}

}  // namespace
}  // namespace inrush
