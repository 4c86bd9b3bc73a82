// Filesystems as a loader must know them: a table by statfs magic, and what lies below one file.
// Asks the kernel at each call and keeps nothing; any thread. Unknown is a value: an empty string,
// 0, or the last row of the table.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace inrush {

struct FilesystemKind {
  uint64_t magic;    // statfs f_type
  const char* type;  // as mount(8) prints it
  bool memory;       // its files are pages of memory and nothing else
  bool may_map;      // local, and its mappings neither tear nor stall beyond a disk's latency
  bool sequential;   // wants few long streams
  bool own_pages;    // a file's cached pages belong to its own inode: none there means cold
};

std::span<const FilesystemKind> filesystem_table();

// The row of the file's filesystem; one with an empty type where it is not in the table.
FilesystemKind filesystem_of(int fd);

// What the mount table says of the file's mount: "ext4", "fuse.gcsfuse", "nfs4", and its source:
// "/dev/nvme0n1p2", "server:/export".
struct Mount {
  std::string type;
  std::string source;
};
Mount mount_of(int fd);

// Whether the path leads to a filesystem of this machine, whose reads do not wait for others. Asks
// the kernel for what it knows already, and never the filesystem itself, which may not answer.
bool is_near(const std::string& path);

// The UUID of the file's filesystem where it has one that outlives a reboot.
std::string filesystem_uuid(int fd);

// Model and size of the block device below the file.
std::string device_model(int fd);

// What the kernel reads ahead for a sequential reader of this file, 0 where that is not known.
uint32_t read_ahead_kib(int fd);

}  // namespace inrush
