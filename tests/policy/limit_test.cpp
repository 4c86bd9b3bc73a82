#include "inrush/policy/limit.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <vector>

#include "tests/policy/folders.h"
#include "tests/policy/places.h"

namespace inrush {
namespace {

using namespace testing_places;

TEST(Limit, is_measured_cold_and_warm) {
  Folder folder("plain");
  folder.put("a", (24U << 20) + 777);
  folder.put("b", 5U << 20);
  const std::vector<Blob> blobs = {open_blob(folder.path("a")), open_blob(folder.path("b"))};
  for (const LimitKind kind : {LimitKind::cold, LimitKind::warm}) {
    const LimitResult result = measure_limit(blobs, kind, 5);
    std::printf("%s: %.2f GB/s\n", result.method.c_str(), result.bytes_per_second / 1e9);
    if (result.bytes == 0) {
      std::printf("skipped: %s\n", result.method.c_str());
      continue;
    }
    EXPECT_EQ(result.bytes, 29U << 20) << "all whole blocks, each once";
    EXPECT_GT(result.bytes_per_second, 1e6);
    EXPECT_FALSE(result.method.empty());
  }
}

TEST(Limit, is_bounded_in_time) {
  Folder folder("plain");
  folder.put("a", 64U << 20);
  const std::vector<Blob> blobs = {open_blob(folder.path("a"))};
  const LimitResult result = measure_limit(blobs, LimitKind::cold, 0.001);
  EXPECT_LT(result.bytes, 64U << 20);
  EXPECT_LT(result.seconds, 10);
}

TEST(Limit, says_why_it_cannot_be_measured) {
  Folder folder("squashfs");
  folder.put("a", 4U << 20);
  folder.mount();
  if (!folder.refusal.empty()) GTEST_SKIP() << folder.refusal;
  const std::vector<Blob> blobs = {open_blob(folder.path("a"))};
  const LimitResult cold = measure_limit(blobs, LimitKind::cold, 1);
  EXPECT_EQ(cold.bytes_per_second, 0);
  EXPECT_NE(cold.method.find("no direct I/O"), std::string::npos) << cold.method;
  EXPECT_GT(measure_limit(blobs, LimitKind::warm, 1).bytes_per_second, 0);
  EXPECT_EQ(measure_limit(std::vector<Blob>{Blob()}, LimitKind::cold, 1).bytes, 0U);
}

}  // namespace
}  // namespace inrush
