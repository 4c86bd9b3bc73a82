#include "inrush/base/fd.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <string>

namespace inrush {
namespace {

// Slots of this process's table of descriptors, by the kernel's account.
size_t table_size() {
  std::ifstream status("/proc/self/status");
  std::string word;
  size_t slots = 0;
  while (status >> word && word != "FDSize:") {
  }
  status >> slots;
  return slots;
}

TEST(MakeRoomForDescriptors, grows_the_table_once_for_all_and_leaves_nothing_open) {
  const Fd before = make_eventfd();
  const size_t slots = table_size();
  make_room_for_descriptors(slots + 100);
  EXPECT_GE(table_size(), slots + 100);
  EXPECT_EQ(make_eventfd().get(), before.get() + 1);
}

TEST(MakeRoomForDescriptors, takes_no_more_than_the_process_may_have) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = 128;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  make_room_for_descriptors(100'000);
  EXPECT_GE(table_size(), 128U);
  EXPECT_LT(table_size(), 100'000U);
}

}  // namespace
}  // namespace inrush
