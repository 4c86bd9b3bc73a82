#include "inrush/base/cgroup.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "inrush/base/small_file.h"

namespace inrush {
namespace {

namespace fs = std::filesystem;

// A machine of files: what /proc and /sys say on hosts unlike this one.
class CgroupTest : public testing::Test {
 protected:
  CgroupTest() {
    char pattern[] = "/tmp/inrush-cgroup-XXXXXX";
    root_ = ::mkdtemp(pattern);
    put("/proc/meminfo", "MemTotal: 33554432 kB\nMemFree: 100 kB\nMemAvailable:   16777216 kB\n");
  }
  ~CgroupTest() override { fs::remove_all(root_); }

  void put(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void mount_v2(const std::string& shown_root = "/") const {
    put("/proc/self/mountinfo",
        "22 27 0:21 / /proc rw - proc proc rw\n"
        "41 31 0:38 " +
            shown_root + " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
  }
  void put_v2(const std::string& group, const std::string& limit, const std::string& used,
              const std::string& inactive) const {
    put("/sys/fs/cgroup" + group + "/memory.max", limit + "\n");
    put("/sys/fs/cgroup" + group + "/memory.current", used + "\n");
    put("/sys/fs/cgroup" + group + "/memory.stat",
        "anon 1\nfile 2\ninactive_file " + inactive + "\nactive_file 7\n");
  }

  std::string root_;
};

TEST_F(CgroupTest, without_groups_mem_available_counts) {
  const Grants grants = ask_grants(root_);
  EXPECT_EQ(grants.memory_available, 16ULL << 30);
  EXPECT_EQ(grants.memory_limit, 0U);
  EXPECT_GE(grants.cpus, 1U);
  EXPECT_EQ(grants.group, "");
}

TEST_F(CgroupTest, v2_headroom_counts_inactive_file_pages_as_free) {
  mount_v2();
  put("/proc/self/cgroup", "0::/pod/app\n");
  put_v2("/pod/app", "4294967296", "3221225472", "1073741824");
  put_v2("/pod", "max", "99999999999", "0");
  const Grants grants = ask_grants(root_);
  EXPECT_EQ(grants.memory_limit, 4ULL << 30);
  EXPECT_EQ(grants.memory_available, 2ULL << 30);
  EXPECT_EQ(grants.group, root_ + "/sys/fs/cgroup/pod/app");
}

TEST_F(CgroupTest, v2_the_tightest_group_above_us_decides) {
  mount_v2();
  put("/proc/self/cgroup", "0::/pod/app\n");
  put_v2("/pod/app", "8589934592", "0", "0");
  put_v2("/pod", "2147483648", "1073741824", "0");
  put("/sys/fs/cgroup/pod/memory.high", "1610612736\n");
  const Grants grants = ask_grants(root_);
  EXPECT_EQ(grants.memory_limit, 1536ULL << 20);
  EXPECT_EQ(grants.memory_available, 512ULL << 20);
}

TEST_F(CgroupTest, a_group_over_its_limit_grants_nothing) {
  mount_v2();
  put("/proc/self/cgroup", "0::/\n");
  put_v2("", "1000", "5000", "0");
  EXPECT_EQ(ask_grants(root_).memory_available, 0U);
}

TEST_F(CgroupTest, v1_in_a_container_that_sees_its_own_group_as_the_root) {
  put("/proc/self/mountinfo",
      "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
      "36 31 0:33 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  put("/proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n");
  const std::string memory = "/sys/fs/cgroup/memory";
  put(memory + "/memory.limit_in_bytes", "3000000000\n");
  put(memory + "/memory.usage_in_bytes", "2500000000\n");
  put(memory + "/memory.stat", "inactive_file 1\ntotal_inactive_file 1500000000\n");
  put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
  put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  const Grants grants = ask_grants(root_);
  EXPECT_EQ(grants.memory_limit, 3000000000U);
  EXPECT_EQ(grants.memory_available, 2000000000U);
  EXPECT_EQ(grants.cpus, 1U);
}

TEST_F(CgroupTest, v1_writes_no_limit_as_a_huge_number) {
  put("/proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  put("/proc/self/cgroup", "4:memory:/a\n");
  put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  put("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "5\n");
  const Grants grants = ask_grants(root_);
  EXPECT_EQ(grants.memory_limit, 0U);
  EXPECT_EQ(grants.memory_available, 16ULL << 30);
}

TEST_F(CgroupTest, cpus_are_the_tightest_quota_rounded_up) {
  mount_v2();
  put("/proc/self/cgroup", "0::/pod/app\n");
  put("/sys/fs/cgroup/pod/app/cpu.max", "max 100000\n");
  put("/sys/fs/cgroup/pod/cpu.max", "110000 100000\n");
  cpu_set_t set;
  ASSERT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
  EXPECT_EQ(ask_grants(root_).cpus, CPU_COUNT(&set) >= 2 ? 2U : 1U);
}

TEST_F(CgroupTest, malformed_files_limit_nothing) {
  mount_v2();
  put("/proc/self/cgroup", "garbage\n0::/pod\n");
  put_v2("/pod", "-12", "x", "");
  put("/sys/fs/cgroup/pod/cpu.max", "100000 0\n");
  EXPECT_EQ(ask_grants(root_).memory_available, 16ULL << 30);
  EXPECT_GE(ask_grants(root_).cpus, 1U);
}

TEST(GrantsHere, are_within_what_the_machine_has) {
  const Grants grants = ask_grants();
  const auto total = number_after(read_small_file("/proc/meminfo"), "MemTotal");
  ASSERT_TRUE(total.has_value());
  EXPECT_GT(grants.memory_available, 0U);
  EXPECT_LE(grants.memory_available, *total << 10);
  EXPECT_GE(grants.cpus, 1U);
}

}  // namespace
}  // namespace inrush
