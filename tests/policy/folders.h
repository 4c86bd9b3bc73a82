// Folders on several filesystems for tests: plain, overlay, squashfs, tmpfs. Unmounted and removed
// again when they go out of scope.
#pragma once

#include <sys/mount.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/policy/places.h"

namespace inrush::testing_places {

// A folder of one kind of filesystem with the files put into it; `refusal` says why there is none.
class Folder {
 public:
  explicit Folder(const std::string& kind) : kind_(kind) {
    char pattern[] = "/tmp/inrush-place-XXXXXX";
    root_ = ::mkdtemp(pattern);
    ::chmod(root_.c_str(), 0755);
    for (const char* name : {"lower", "upper", "work", "at"}) {
      std::filesystem::create_directory(root_ + "/" + name);
    }
  }
  ~Folder() {
    if (mounted_) ::umount2((root_ + "/at").c_str(), MNT_DETACH);
    std::filesystem::remove_all(root_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  // Before mount(). The bytes are random.
  void put(const std::string& name, uint64_t size) {
    const std::string path = source(name);
    std::ofstream(path, std::ios::binary) << random_bytes(size, size);
    ::chmod(path.c_str(), 0644);
    // An overlay does not write back what lies below it, and dirty pages cannot be dropped.
    const Fd fd(::open(path.c_str(), O_RDONLY));
    ::fsync(fd.get());
  }

  void mount() {
    if (kind_ == "plain") return;
    std::string command;
    if (kind_ == "overlay") {
      command = "mount -t overlay overlay -o lowerdir=" + root_ + "/lower,upperdir=" + root_ +
                "/upper,workdir=" + root_ + "/work " + at();
    } else if (kind_ == "squashfs") {
      command = "mksquashfs " + root_ + "/lower " + root_ +
                "/image -noI -noD -noF -noX -noappend -quiet -no-progress >/dev/null && mount -o "
                "loop,ro " +
                root_ + "/image " + at();
    } else {
      command = "mount -t tmpfs -o size=256m,mode=755 tmpfs " + at() + " && cp " + root_ +
                "/lower/* " + at();
    }
    mounted_ = std::system((command + " 2>/dev/null").c_str()) == 0;
    if (!mounted_) refusal = "cannot mount a " + kind_ + " here";
  }

  // Where a file is put before mount(), and seen afterwards.
  [[nodiscard]] std::string source(const std::string& name) const {
    return (kind_ == "plain" ? at() : root_ + "/lower") + "/" + name;
  }
  [[nodiscard]] std::string at() const { return root_ + "/at"; }
  [[nodiscard]] std::string path(const std::string& name) const { return at() + "/" + name; }

  std::string refusal;

 private:
  std::string kind_;
  std::string root_;
  bool mounted_ = false;
};

}  // namespace inrush::testing_places
