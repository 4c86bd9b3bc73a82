#include "inrush/base/numa.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "inrush/base/json.h"
#include "inrush/base/small_file.h"
#include "inrush/base/text.h"

namespace inrush {
namespace {

// MPOL_PREFERRED of linux/mempolicy.h, which not every system has headers for.
constexpr int kPreferNode = 1;
constexpr int kMostNodes = 1024;
constexpr uint32_t kMostCpus = 1U << 16;

std::string why_not(const char* call, int number) {
  return fmt::format("{}: {}", call, std::strerror(number));
}

// 0, or the errno.
int bind_memory(void* memory, uint64_t size, int node) {
  if (node < 0 || node >= kMostNodes) return EINVAL;
  std::array<unsigned long, kMostNodes / 64> nodes{};  // NOLINT: the kernel's type
  nodes[static_cast<size_t>(node) / 64] = 1UL << (static_cast<unsigned>(node) % 64);
  return ::syscall(SYS_mbind, memory, size, kPreferNode, nodes.data(), kMostNodes, 0) == 0 ? 0
                                                                                           : errno;
}

int try_memory(int node) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  void* memory = ::mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errno;
  const int result = bind_memory(memory, page, node);
  ::munmap(memory, page);
  return result;
}

// A mask of CPUs as the kernel takes it, of any length.
class CpuMask {
 public:
  CpuMask() : words_(kMostCpus / kBits) {}

  // sched_getaffinity fails with EINVAL while the mask is shorter than the kernel's.
  static std::optional<CpuMask> of_this_thread() {
    CpuMask mask;
    if (::sched_getaffinity(0, mask.size(), mask.set()) != 0) return std::nullopt;
    return mask;
  }
  static CpuMask of(const std::vector<uint32_t>& cpus) {
    CpuMask mask;
    for (const uint32_t cpu : cpus) mask.words_[cpu / kBits] |= 1UL << (cpu % kBits);
    return mask;
  }
  [[nodiscard]] bool has(uint32_t cpu) const {
    return (words_[cpu / kBits] >> (cpu % kBits) & 1UL) != 0;
  }
  [[nodiscard]] size_t count() const { return static_cast<size_t>(CPU_COUNT_S(size(), set())); }
  // 0, or the errno.
  [[nodiscard]] int set_for_this_thread() const {
    return ::sched_setaffinity(0, size(), set()) == 0 ? 0 : errno;
  }

 private:
  static constexpr uint32_t kBits = 64;
  [[nodiscard]] size_t size() const { return words_.size() * sizeof(words_[0]); }
  cpu_set_t* set() { return reinterpret_cast<cpu_set_t*>(words_.data()); }
  [[nodiscard]] const cpu_set_t* set() const {
    return reinterpret_cast<const cpu_set_t*>(words_.data());
  }

  std::vector<unsigned long> words_;  // NOLINT: the kernel's type
};

void ask_threads(NumaNode& node, const std::string& root) {
  const std::string folder = fmt::format("{}/sys/devices/system/node/node{}", root, node.number);
  std::vector<uint32_t> cpus = parse_cpu_list(trimmed(read_small_file(folder + "/cpulist")));
  const std::optional<CpuMask> allowed = CpuMask::of_this_thread();
  if (!allowed) {
    node.threads = why_not("sched_getaffinity", errno);
    return;
  }
  if (cpus.empty()) {
    node.threads = "the kernel tells of no CPUs there";
    return;
  }
  std::erase_if(cpus, [&](uint32_t cpu) { return !allowed->has(cpu); });
  if (cpus.empty()) {
    node.threads = "this process may use none of its CPUs";
  } else if (cpus.size() == allowed->count()) {
    node.threads = "this process may use no other CPUs than the node's";
  } else if (const int refused = allowed->set_for_this_thread()) {  // as it is: only to ask
    node.threads = why_not("sched_setaffinity", refused);
  } else {
    node.cpus = std::move(cpus);
  }
}

}  // namespace

int numa_node_of_pci(std::string_view bus, const std::string& root) {
  const std::string path = fmt::format("{}/sys/bus/pci/devices/{}/numa_node", root, lower(bus));
  const auto number = to_number(trimmed(read_small_file(path)));  // "-1": none
  return number && *number < kMostNodes ? static_cast<int>(*number) : -1;
}

NumaNode ask_numa_node(int number, const std::string& root) {
  NumaNode node;
  if (number < 0 || number >= kMostNodes) return node;
  node.number = number;
  ask_threads(node, root);
  const int refused = try_memory(number);
  node.memory = refused == 0;
  if (refused != 0) node.memory_refusal = why_not("mbind", refused);
  return node;
}

void stay_on(const NumaNode& node) noexcept {
  if (node.cpus.empty()) return;
  static_cast<void>(CpuMask::of(node.cpus).set_for_this_thread());
}

void prefer_memory_of(const NumaNode& node, void* memory, uint64_t size) noexcept {
  if (node.memory) static_cast<void>(bind_memory(memory, size, node.number));
}

std::string to_text(const NumaNode& node) {
  if (node.number < 0) return {};
  const std::string memory =
      node.memory ? "pinned memory" : fmt::format("no memory of it ({})", node.memory_refusal);
  const std::string threads = node.cpus.empty()
                                  ? fmt::format("threads stay where they are ({})", node.threads)
                                  : fmt::format("threads on its CPUs {}", cpu_list(node.cpus));
  return fmt::format("NUMA node {}: {}, {}", node.number, memory, threads);
}

std::string to_json(const NumaNode& node) {
  if (node.number < 0) return "null";
  return fmt::format(
      R"({{"node":{},"cpus":{},"threads":{},"memory":{},"memory_refusal":{},"text":{}}})",
      node.number, json_string(cpu_list(node.cpus)), json_string(node.threads), node.memory,
      json_string(node.memory_refusal), json_string(to_text(node)));
}

std::vector<uint32_t> parse_cpu_list(std::string_view text) {
  std::vector<uint32_t> cpus;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const size_t dash = std::min(part.find('-'), part.size());
    const auto first = to_number(part.substr(0, dash));
    const auto last = dash == part.size() ? first : to_number(part.substr(dash + 1));
    if (!first || !last || *first > *last || *last >= kMostCpus) return {};
    if (cpus.size() + (*last - *first) >= kMostCpus) return {};
    for (uint64_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(static_cast<uint32_t>(cpu));
  }
  return cpus;
}

std::string cpu_list(const std::vector<uint32_t>& cpus) {
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t end = i;
    while (end + 1 < cpus.size() && cpus[end + 1] == cpus[end] + 1) ++end;
    text += text.empty() ? "" : ",";
    text += end > i ? fmt::format("{}-{}", cpus[i], cpus[end]) : fmt::format("{}", cpus[i]);
    i = end + 1;
  }
  return text;
}

}  // namespace inrush
