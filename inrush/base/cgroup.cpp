#include "inrush/base/cgroup.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "inrush/base/small_file.h"
#include "inrush/base/text.h"

namespace inrush {

namespace {

// v1 writes "no limit" as the largest multiple of the page size in a signed long.
constexpr uint64_t kNoLimit = 1ULL << 62;
constexpr uint64_t kUnbounded = UINT64_MAX;

struct Machine {
  std::string root;    // before /proc and /sys
  std::string mounts;  // /proc/self/mountinfo
  std::string own;     // /proc/self/cgroup
};

// Where one controller's groups are seen: v2's single tree, or v1's tree of that controller.
struct Tree {
  bool unified = false;
  std::string mount_point;
  std::string group;  // our group below the mount point: "" or "/a/b"
};

bool lists(std::string_view comma_separated, std::string_view word) {
  while (!comma_separated.empty()) {
    const size_t end = comma_separated.find(',');
    if (comma_separated.substr(0, end) == word) return true;
    if (end == std::string_view::npos) break;
    comma_separated.remove_prefix(end + 1);
  }
  return false;
}

// "0::/a/b" is v2's line, "4:memory:/a/b" v1's. Returns the path, or nothing.
std::string own_path(std::string_view text, std::string_view controller, bool unified) {
  for (const std::string_view line : lines_of(text)) {
    const size_t first = line.find(':');
    if (first == std::string_view::npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view names = line.substr(first + 1, second - first - 1);
    if (unified ? names.empty() : lists(names, controller)) {
      return std::string(line.substr(second + 1));
    }
  }
  return {};
}

// A container often sees its own group mounted as the root: what the mount shows ("root") is then
// a prefix of our path, or our path lies outside of it and the mount point itself is our group.
std::string below_mount(std::string path, const std::string& mount_root) {
  if (mount_root != "/") {
    if (path == mount_root || path.starts_with(mount_root + "/")) {
      path.erase(0, mount_root.size());
    } else {
      path.clear();
    }
  }
  while (!path.empty() && path.back() == '/') path.pop_back();
  return path.starts_with("/..") ? std::string() : path;
}

// The trees in which this controller may be governed; v1 and v2 may be mounted side by side.
std::vector<Tree> trees_of(const Machine& machine, std::string_view controller) {
  std::vector<Tree> trees;
  for (const std::string_view line : lines_of(machine.mounts)) {
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto head = fields_of(line.substr(0, dash));
    const auto tail = fields_of(line.substr(dash + 3));
    if (head.size() < 5 || tail.size() < 3) continue;
    const bool unified = tail[0] == "cgroup2";
    if (!unified && (tail[0] != "cgroup" || !lists(tail[2], controller))) continue;
    const std::string path = own_path(machine.own, controller, unified);
    if (path.empty()) continue;
    trees.push_back(
        {unified, machine.root + std::string(head[4]), below_mount(path, std::string(head[3]))});
  }
  return trees;
}

// Calls `visit` with our group's folder and each one above it, up to the mount point.
template <typename Visit>
void each_level(const Tree& tree, Visit visit) {
  std::string group = tree.group;
  while (true) {
    visit(tree.mount_point + group);
    if (group.empty()) return;
    group.erase(group.rfind('/'));
  }
}

uint64_t limit_in(const std::string& path) {
  return to_number(trimmed(read_small_file(path))).value_or(kUnbounded);
}

struct Headroom {
  uint64_t limit = kUnbounded;
  uint64_t left = kUnbounded;
};

// What one group still grants. Inactive file pages are counted as free: the kernel drops them
// before it refuses memory. Active ones are not: somebody uses them.
Headroom headroom_in(const std::string& folder, bool unified) {
  uint64_t limit = limit_in(folder + (unified ? "/memory.max" : "/memory.limit_in_bytes"));
  // Beyond memory.high the group is throttled, which is as good as a limit for a load.
  if (unified) limit = std::min(limit, limit_in(folder + "/memory.high"));
  if (limit >= kNoLimit) return {};
  const uint64_t used =
      to_number(trimmed(read_small_file(folder +
                                        (unified ? "/memory.current" : "/memory.usage_in_bytes"))))
          .value_or(0);
  const uint64_t reclaimable = number_after(read_small_file(folder + "/memory.stat"),
                                            unified ? "inactive_file" : "total_inactive_file")
                                   .value_or(0);
  const uint64_t taken = used - std::min(used, reclaimable);
  return {limit, limit - std::min(limit, taken)};
}

void ask_memory(const Machine& machine, Grants& grants) {
  const std::string meminfo = read_small_file(machine.root + "/proc/meminfo");
  const auto available = number_after(meminfo, "MemAvailable");
  grants.swap_free = number_after(meminfo, "SwapFree").value_or(0) << 10;
  uint64_t left = available ? *available << 10 : kUnbounded;
  if (!available) {
    const long pages = ::sysconf(_SC_AVPHYS_PAGES);
    if (pages > 0)
      left = static_cast<uint64_t>(pages) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  }
  uint64_t limit = kUnbounded;
  for (const Tree& tree : trees_of(machine, "memory")) {
    each_level(tree, [&](const std::string& folder) {
      const Headroom headroom = headroom_in(folder, tree.unified);
      limit = std::min(limit, headroom.limit);
      left = std::min(left, headroom.left);
    });
    // A v2 tree beside v1 (hybrid) has no memory controller: it does not name our group.
    if (!tree.unified || !read_small_file(tree.mount_point + tree.group + "/memory.stat").empty()) {
      grants.group = tree.mount_point + tree.group;
    }
  }
  grants.memory_limit = limit == kUnbounded ? 0 : limit;
  grants.memory_available = left;
}

// CPUs' worth of time that a group grants in each period, rounded up; at least 1.
uint32_t quota_in(const std::string& folder, bool unified) {
  std::optional<uint64_t> quota;
  std::optional<uint64_t> period;
  if (unified) {
    const std::string text = read_small_file(folder + "/cpu.max");  // "max 100000"
    const auto fields = fields_of(text);
    if (fields.size() >= 2) {
      quota = to_number(fields[0]);
      period = to_number(fields[1]);
    }
  } else {
    quota = to_number(trimmed(read_small_file(folder + "/cpu.cfs_quota_us")));  // -1: none
    period = to_number(trimmed(read_small_file(folder + "/cpu.cfs_period_us")));
  }
  if (!quota || !period || *quota == 0 || *period == 0) return UINT32_MAX;
  return static_cast<uint32_t>(std::min<uint64_t>((*quota + *period - 1) / *period, UINT32_MAX));
}

// sched_getaffinity fails with EINVAL while the mask is shorter than the kernel's.
uint32_t affinity_count() {
  for (int cpus = 1024; cpus <= 1 << 16; cpus *= 4) {
    cpu_set_t* set = CPU_ALLOC(cpus);
    if (set == nullptr) break;
    const size_t size = CPU_ALLOC_SIZE(cpus);
    const bool known = ::sched_getaffinity(0, size, set) == 0;
    const int count = known ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (count > 0) return static_cast<uint32_t>(count);
  }
  return static_cast<uint32_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

}  // namespace

Grants ask_grants(const std::string& root) {
  const Machine machine{root, read_small_file(root + "/proc/self/mountinfo"),
                        read_small_file(root + "/proc/self/cgroup")};
  Grants grants;
  ask_memory(machine, grants);
  grants.cpus = affinity_count();
  for (const Tree& tree : trees_of(machine, "cpu")) {
    each_level(tree, [&](const std::string& folder) {
      grants.cpus = std::min(grants.cpus, quota_in(folder, tree.unified));
    });
  }
  return grants;
}

}  // namespace inrush
