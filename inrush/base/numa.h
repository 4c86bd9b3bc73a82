// The NUMA node that memory and threads of a device had best lie on. What the kernel, the cpuset or
// a seccomp filter refuses is left out, and said: a load is slower then, never wrong. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace inrush {

struct NumaNode {
  int number = -1;             // -1: none is known, and nothing is moved
  std::vector<uint32_t> cpus;  // where threads are kept; empty: they stay where they are
  std::string threads;         // why they stay; empty: they are kept there
  bool memory = false;         // whether memory may be asked for there
  std::string memory_refusal;  // why not
};

// The node that the kernel has for a PCI device, "0000:3B:00.0"; -1: it knows none.
// `root` stands before /sys; tests put a machine of their own there.
int numa_node_of_pci(std::string_view bus, const std::string& root = "");

// What may be had of this node: tries both calls once, without moving anything. About 0.1 ms.
NumaNode ask_numa_node(int number, const std::string& root = "");

// Keeps the calling thread, and those that it starts from now on, on the node's CPUs.
void stay_on(const NumaNode& node) noexcept;

// Memory that is touched from now on comes from the node while it has some.
void prefer_memory_of(const NumaNode& node, void* memory, uint64_t size) noexcept;

// "NUMA node 1: pinned memory, and threads on its CPUs 8-15"; "" where none is known.
std::string to_text(const NumaNode& node);
// JSON object of it; null where none is known.
std::string to_json(const NumaNode& node);

// "0-3,8,10-11", as the kernel writes it. What is no such list is empty.
std::vector<uint32_t> parse_cpu_list(std::string_view text);
std::string cpu_list(const std::vector<uint32_t>& cpus);

}  // namespace inrush
