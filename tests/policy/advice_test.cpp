#include "inrush/policy/advice.h"
#include "inrush/base/balloon.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/files.h"

namespace inrush {
namespace {

constexpr uint64_t kBillion = 1'000'000'000;

Facts healthy() {
  Facts facts;
  facts.machine = {"6.8.0-1", 8, 64 * kBillion, 0, 0, 1 << 30, 4096, "madvise"};
  facts.filesystem.type = "ext4";
  facts.filesystem.may_map = facts.filesystem.direct = true;
  facts.engines = {{"uring", ""}, {"mmap", ""}};
  facts.wanted_bytes = 3 * kBillion;
  facts.blobs = 1;
  return facts;
}

const Surroundings kUsual = {{}, "/dev/shm/inrush-0", false};

std::string all_of(const Facts& facts, const Surroundings& surroundings = kUsual) {
  std::string text;
  for (const Advice& one : advise(facts, surroundings)) text += one.what + ": " + one.why + "\n";
  return text;
}

TEST(Advice, a_healthy_machine_needs_none) { EXPECT_EQ(all_of(healthy()), ""); }

TEST(Advice, names_the_limit_that_is_too_small) {
  Facts facts = healthy();
  facts.machine.memory_available = kBillion;
  facts.machine.memory_limit = 2 * kBillion;
  EXPECT_NE(all_of(facts).find("cgroup's memory limit, now 2000 MB"), std::string::npos);
}

TEST(Advice, a_disk_that_reads_little_ahead) {
  Facts facts = healthy();
  facts.filesystem.read_ahead_kib = 128;
  EXPECT_NE(all_of(facts).find("it reads only 128 KiB ahead"), std::string::npos);
}

TEST(Advice, repeats_why_an_engine_cannot_be_used) {
  Facts facts = healthy();
  facts.engines[0].reason = "EPERM";
  EXPECT_NE(all_of(facts).find("here: EPERM"), std::string::npos);
}

TEST(Advice, knows_far_places_and_their_read_ahead) {
  Facts facts = healthy();
  facts.filesystem.type = "nfs4";
  facts.filesystem.sequential = true;
  facts.filesystem.read_ahead_kib = 128;
  const std::string text = all_of(facts);
  EXPECT_NE(text.find("nfs4 is far"), std::string::npos);
  EXPECT_NE(text.find("read_ahead_kb"), std::string::npos);
}

TEST(Advice, knows_hosts_that_take_back_free_memory) {
  Surroundings surroundings = kUsual;
  surroundings.memory_taken_back = true;
  EXPECT_NE(all_of(healthy(), surroundings).find("no free page reporting"), std::string::npos);
}

TEST(FreeMemory, is_taken_back_where_a_balloon_reports_free_pages) {
  const test::Folder folder;
  EXPECT_FALSE(is_free_memory_taken_back(folder.path() + "/none"));
  folder.write("bind", "");
  folder.write("virtio3/features", "01100000000000000000000000000000100");
  EXPECT_FALSE(is_free_memory_taken_back(folder.path()));
  folder.write("virtio4/features", "01100100000000000000000000000000100");
  EXPECT_TRUE(is_free_memory_taken_back(folder.path()));
}

TEST(Advice, tells_of_places_that_cannot_be_kept) {
  const std::string text =
      all_of(healthy(), {{"it is broken", "nothing is kept", "rm it"}, "", false});
  EXPECT_NE(text.find("rm it: nothing is kept (it is broken)"), std::string::npos);
  EXPECT_NE(text.find("/dev/shm"), std::string::npos);
}

TEST(Advice, old_kernels_and_missing_huge_pages) {
  Facts facts = healthy();
  facts.machine.kernel = "5.4.0";
  facts.machine.huge_pages = "never";
  const std::string text = all_of(facts);
  EXPECT_NE(text.find("5.14"), std::string::npos);
  EXPECT_NE(text.find("transparent_hugepage"), std::string::npos);
}

}  // namespace
}  // namespace inrush
