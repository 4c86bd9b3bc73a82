#include "inrush/base/numa.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace inrush {
namespace {

namespace fs = std::filesystem;

std::vector<uint32_t> allowed() {
  cpu_set_t set;
  std::vector<uint32_t> cpus;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// A machine of files: what /sys says on hosts unlike this one.
class NumaTest : public testing::Test {
 protected:
  NumaTest() {
    char pattern[] = "/tmp/inrush-numa-XXXXXX";
    root_ = ::mkdtemp(pattern);
  }
  ~NumaTest() override { fs::remove_all(root_); }

  void put(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void put_node(int node, const std::string& cpus) const {
    put("/sys/devices/system/node/node" + std::to_string(node) + "/cpulist", cpus + "\n");
  }

  std::string root_;
};

TEST_F(NumaTest, the_node_of_a_pci_device) {
  put("/sys/bus/pci/devices/0000:3b:00.0/numa_node", "1\n");
  put("/sys/bus/pci/devices/0000:5e:00.0/numa_node", "-1\n");
  EXPECT_EQ(numa_node_of_pci("0000:3B:00.0", root_), 1);
  EXPECT_EQ(numa_node_of_pci("0000:5e:00.0", root_), -1);
  EXPECT_EQ(numa_node_of_pci("0000:99:00.0", root_), -1);
}

TEST_F(NumaTest, lists_of_cpus) {
  EXPECT_EQ(parse_cpu_list("0-3,8,10-11"), (std::vector<uint32_t>{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(cpu_list({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
  EXPECT_EQ(cpu_list({}), "");
  for (const char* text : {"", "x", "3-1", "0-", "-3", "0,,1", "0-70000", "0-65535,0-65535"}) {
    EXPECT_TRUE(parse_cpu_list(text).empty()) << text;
  }
}

TEST_F(NumaTest, of_a_node_only_the_cpus_that_this_process_may_use) {
  const std::vector<uint32_t> own = allowed();
  if (own.size() < 2) GTEST_SKIP() << "this process may use one CPU only";
  put_node(1, std::to_string(own[0]) + ",60000-60003");
  const NumaNode node = ask_numa_node(1, root_);
  EXPECT_EQ(node.threads, "");
  EXPECT_EQ(node.cpus, std::vector<uint32_t>{own[0]});
  EXPECT_NE(to_text(node).find("threads on its CPUs " + std::to_string(own[0])), std::string::npos);
}

TEST_F(NumaTest, why_threads_stay_where_they_are) {
  put_node(1, "60000-60003");
  EXPECT_EQ(ask_numa_node(1, root_).threads, "this process may use none of its CPUs");
  EXPECT_EQ(ask_numa_node(2, root_).threads, "the kernel tells of no CPUs there");
  put_node(0, cpu_list(allowed()));
  EXPECT_EQ(ask_numa_node(0, root_).threads, "this process may use no other CPUs than the node's");
  EXPECT_TRUE(ask_numa_node(1, root_).cpus.empty());
}

TEST_F(NumaTest, a_node_that_is_not_there_is_refused_memory_with_the_kernels_reason) {
  const NumaNode node = ask_numa_node(1000, root_);
  EXPECT_FALSE(node.memory);
  EXPECT_EQ(node.memory_refusal.find("mbind: "), 0U) << node.memory_refusal;
  prefer_memory_of(node, nullptr, 4096);
  stay_on(node);
}

TEST_F(NumaTest, no_node_is_nothing_to_do) {
  const NumaNode none = ask_numa_node(-1, root_);
  EXPECT_EQ(none.number, -1);
  EXPECT_EQ(to_text(none), "");
  EXPECT_EQ(to_json(none), "null");
  const std::vector<uint32_t> before = allowed();
  stay_on(none);
  EXPECT_EQ(allowed(), before);
}

TEST_F(NumaTest, a_thread_stays_there_with_those_it_starts_and_no_other_does) {
  const std::vector<uint32_t> own = allowed();
  if (own.size() < 2) GTEST_SKIP() << "this process may use one CPU only";
  put_node(1, std::to_string(own[1]));
  const NumaNode node = ask_numa_node(1, root_);
  std::vector<uint32_t> there;
  std::thread([&] {
    stay_on(node);
    std::thread([&] { there = allowed(); }).join();
  }).join();
  EXPECT_EQ(there, std::vector<uint32_t>{own[1]});
  EXPECT_EQ(allowed(), own);
}

TEST_F(NumaTest, memory_is_asked_for_there) {
  const NumaNode node = ask_numa_node(0, root_);
  if (!node.memory) GTEST_SKIP() << node.memory_refusal;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  void* memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  prefer_memory_of(node, memory, page);
  constexpr int kOfAddress = 2;  // MPOL_F_ADDR
  int policy = -1;
  unsigned long nodes[16] = {};  // NOLINT: the kernel's type
  if (::syscall(SYS_get_mempolicy, &policy, nodes, 1024, memory, kOfAddress) == 0) {
    EXPECT_EQ(policy, 1);  // MPOL_PREFERRED
    EXPECT_EQ(nodes[0], 1U);
  }
  ::munmap(memory, page);
}

}  // namespace
}  // namespace inrush
