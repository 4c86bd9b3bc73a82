// A folder that stands before /sys: there the fake driver's device 0 is on NUMA node 1, which has
// one of the CPUs that this process may use.
#pragma once

#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace inrush::test {

class TwoNodes {
 public:
  TwoNodes() {
    char pattern[] = "/tmp/inrush-nodes-XXXXXX";
    root_ = ::mkdtemp(pattern);
    put("/sys/bus/pci/devices/ffff:00:00.0/numa_node", "1\n");
    put("/sys/devices/system/node/node1/cpulist", std::to_string(cpu()) + "\n");
  }
  ~TwoNodes() { std::filesystem::remove_all(root_); }
  TwoNodes(const TwoNodes&) = delete;
  TwoNodes& operator=(const TwoNodes&) = delete;

  [[nodiscard]] const std::string& root() const { return root_; }
  // The last CPU that this process may use; -1 where it may use only that one.
  [[nodiscard]] static int cpu() {
    cpu_set_t set;
    ::sched_getaffinity(0, sizeof(set), &set);
    int last = CPU_SETSIZE - 1;
    while (!CPU_ISSET(last, &set)) --last;
    return CPU_COUNT(&set) > 1 ? last : -1;
  }
  // Whether the calling thread is kept on the node.
  [[nodiscard]] static bool here(int cpu) {
    cpu_set_t set;
    ::sched_getaffinity(0, sizeof(set), &set);
    return CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set);
  }

 private:
  void put(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  std::string root_;
};

}  // namespace inrush::test
