#include "inrush/base/filesystem.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/base/small_file.h"
#include "inrush/base/statx.h"
#include "inrush/base/text.h"

namespace inrush {

namespace {

// memory, may_map, sequential, own_pages. Numbers: linux/magic.h and the filesystems' own headers.
// overlay's cached pages belong to the file below; FUSE may pass through to another file; ZFS and
// GPFS keep a cache of their own; 9p is also what a sandbox's gofer calls itself.
constexpr FilesystemKind kTable[] = {
    {0xEF53, "ext4", false, true, false, true},
    {0x58465342, "xfs", false, true, false, true},
    {0x9123683E, "btrfs", false, true, false, true},
    {0xF2F52010, "f2fs", false, true, false, true},
    {0xCA451A4E, "bcachefs", false, true, false, true},
    {0x01021994, "tmpfs", true, true, false, true},
    {0x858458F6, "ramfs", true, true, false, true},
    {0x958458F6, "hugetlbfs", true, false, false, true},
    {0x794C7630, "overlay", false, true, false, false},
    {0x73717368, "squashfs", false, true, false, true},
    {0xE0F5E1E2, "erofs", false, true, false, true},
    {0x9660, "iso9660", false, true, false, true},
    {0x4D44, "vfat", false, true, false, true},
    {0x2011BAB0, "exfat", false, true, false, true},
    {0x7366746E, "ntfs3", false, true, false, true},
    {0x2FC12FC1, "zfs", false, false, false, false},
    {0x01161970, "gfs2", false, false, false, true},
    {0x7461636F, "ocfs2", false, false, false, true},
    {0x65735546, "fuse", false, false, true, false},
    {0x6969, "nfs", false, false, true, true},
    {0x517B, "smbfs", false, false, true, true},
    {0xFF534D42, "cifs", false, false, true, true},
    {0xFE534D42, "smb3", false, false, true, true},
    {0x01021997, "9p", false, false, true, false},
    {0x00C36400, "ceph", false, false, true, true},
    {0x0BD00BD0, "lustre", false, false, true, true},
    {0x47504653, "gpfs", false, false, true, false},
    {0x19830326, "beegfs", false, false, true, false},
    {0x20030528, "orangefs", false, false, true, false},
    {0x5346414F, "afs", false, false, true, true},
    {0xAAD7AAEA, "panfs", false, false, true, false},
    {0x786F4256, "vboxsf", false, false, true, false},
};

constexpr FilesystemKind kNotInTable = {0, "", false, false, false, false};

constexpr unsigned kStatxMountId = 0x1000;  // since Linux 5.8
constexpr size_t kMountIdAt = 144;

std::optional<uint64_t> mount_id(int fd) {
  const auto answer = StatxAnswer::ask(fd, kStatxMountId);
  return answer ? std::optional(answer->field<uint64_t>(kMountIdAt)) : std::nullopt;
}

std::string device_number(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return {};
  return fmt::format("{}:{}", major(status.st_dev), minor(status.st_dev));
}

// Folders of /sys that describe the device: a partition's own, then its disk's.
std::vector<std::string> device_folders(int fd) {
  const std::string device = "/sys/dev/block/" + device_number(fd);
  return {device, device + "/.."};
}

bool all_zero(const uint8_t* bytes, size_t count) {
  return std::all_of(bytes, bytes + count, [](uint8_t byte) { return byte == 0; });
}

// FS_IOC_GETFSUUID, Linux 6.9: a length, then the bytes.
std::string uuid_by_ioctl(int fd) {
  struct Answer {
    uint8_t size;
    uint8_t bytes[16];
  } answer{};
  constexpr unsigned long kRequest = _IOR(0x15, 0, Answer);
  if (::ioctl(fd, kRequest, &answer) != 0 || answer.size != sizeof answer.bytes) return {};
  // Images made for throw-away machines all carry the same zeros.
  if (all_zero(answer.bytes, sizeof answer.bytes)) return {};
  std::string text;
  for (const uint8_t byte : answer.bytes) text += fmt::format("{:02x}", byte);
  return text;
}

// The link in /dev/disk/by-uuid that leads to the file's block device.
std::string uuid_by_link(int fd) {
  struct stat file {};
  if (::fstat(fd, &file) != 0) return {};
  const std::string folder = "/dev/disk/by-uuid";
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(folder.c_str()), &::closedir);
  if (!entries) return {};
  while (const dirent* entry = ::readdir(entries.get())) {
    struct stat device {};
    if (::stat((folder + "/" + entry->d_name).c_str(), &device) == 0 && S_ISBLK(device.st_mode) &&
        device.st_rdev == file.st_dev) {
      return entry->d_name;
    }
  }
  return {};
}

// The path, or the deepest folder above it that is found without asking its filesystem: what is
// mounted is always known.
Fd open_cached(const std::string& path) {
  constexpr long kOpenat2 = 437;             // the same number on every architecture
  constexpr uint64_t kResolveCached = 0x20;  // since Linux 5.12
  const uint64_t how[3] = {O_PATH | O_CLOEXEC, 0, kResolveCached};
  for (std::string part = path.empty() ? "." : path;;) {
    Fd fd(static_cast<int>(::syscall(kOpenat2, AT_FDCWD, part.c_str(), how, sizeof how)));
    if (fd || (errno != EAGAIN && errno != ENOENT)) return fd;
    while (part.size() > 1 && part.back() == '/') part.pop_back();
    const size_t slash = part.rfind('/');
    if (part == "/" || part == ".") return {};
    part = slash == std::string::npos ? "." : slash == 0 ? "/" : part.substr(0, slash);
  }
}

// The first mount whose number and device are these; empty where there is none.
template <typename Ours>
Mount find_mount(const Ours& ours) {
  const std::string mounts = read_small_file("/proc/self/mountinfo");
  for (const std::string_view line : lines_of(mounts)) {
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto head = fields_of(line.substr(0, dash));
    const auto tail = fields_of(line.substr(dash + 3));
    if (head.size() < 3 || tail.size() < 2 || !ours(head[0], head[2])) continue;
    return {std::string(tail[0]), std::string(tail[1])};
  }
  return {};
}

}  // namespace

std::span<const FilesystemKind> filesystem_table() { return kTable; }

FilesystemKind filesystem_of(int fd) {
  struct statfs status {};
  if (::fstatfs(fd, &status) != 0) return kNotInTable;
  // f_type is a signed word on some machines: CIFS comes out negative.
  const uint64_t magic = static_cast<uint32_t>(status.f_type);
  for (const FilesystemKind& kind : kTable) {
    if (kind.magic == magic) return kind;
  }
  FilesystemKind unknown = kNotInTable;
  unknown.magic = magic;
  return unknown;
}

Mount mount_of(int fd) {
  const std::optional<uint64_t> id = mount_id(fd);
  const std::string device = device_number(fd);
  return find_mount([&](std::string_view number, std::string_view of_device) {
    return id ? to_number(number) == id : of_device == device;
  });
}

bool is_near(const std::string& path) {
  const Fd at = open_cached(path);
  std::array<std::byte, 256> answer{};
  if (!at || ::syscall(SYS_statx, at.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0,
                       answer.data()) != 0) {
    return true;  // no kernel to tell, or no such path: that is said at once
  }
  uint32_t device[2];  // stx_dev_major and stx_dev_minor
  std::memcpy(device, answer.data() + 136, sizeof device);
  if (device[0] != 0) return true;  // a block device
  const std::string number = fmt::format("{}:{}", device[0], device[1]);
  const Mount mount =
      find_mount([&](std::string_view, std::string_view of_device) { return of_device == number; });
  return mount.type.empty() ||
         std::any_of(std::begin(kTable), std::end(kTable), [&](const FilesystemKind& kind) {
           return !kind.sequential && mount.type == kind.type;
         });
}

std::string filesystem_uuid(int fd) {
  const std::string uuid = uuid_by_ioctl(fd);
  return uuid.empty() ? uuid_by_link(fd) : uuid;
}

std::string device_model(int fd) {
  for (const std::string& folder : device_folders(fd)) {
    const std::string size(trimmed(read_small_file(folder + "/size")));
    if (size.empty()) continue;
    // virtio disks have no model but a driver.
    std::string model(trimmed(read_small_file(folder + "/device/model")));
    if (model.empty()) model = trimmed(read_small_file(folder + "/../device/model"));
    if (model.empty()) {
      char target[256];
      const ssize_t length = ::readlink((folder + "/device/driver").c_str(), target, sizeof target);
      const std::string_view path(target, length > 0 ? static_cast<size_t>(length) : 0);
      model = file_name(path);
    }
    return fmt::format("{} of {} sectors", model.empty() ? "disk" : model, size);
  }
  return {};
}

uint32_t read_ahead_kib(int fd) {
  std::vector<std::string> places = {"/sys/class/bdi/" + device_number(fd) + "/read_ahead_kb"};
  for (const std::string& folder : device_folders(fd)) {
    places.push_back(folder + "/queue/read_ahead_kb");
  }
  for (const std::string& place : places) {
    if (const auto kib = to_number(trimmed(read_small_file(place)))) {
      return static_cast<uint32_t>(std::min<uint64_t>(*kib, UINT32_MAX));
    }
  }
  return 0;
}

}  // namespace inrush
