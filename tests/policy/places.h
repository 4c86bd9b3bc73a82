// Files on several filesystems for tests: a plain folder, an overlay, a squashfs image, a tmpfs,
// with residency made to order. Everything is unmounted and removed again.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/core/blob.h"

namespace inrush::testing_places {

inline std::string random_bytes(uint64_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (uint64_t i = 0; i + 8 <= size; i += 8) {
    const uint64_t word = random();
    std::copy_n(reinterpret_cast<const char*>(&word), 8, bytes.data() + i);
  }
  return bytes;
}

inline Blob open_blob(const std::string& path) {
  auto fd = std::make_shared<Fd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  ::fstat(fd->get(), &status);
  Blob blob;
  blob.name = path;
  blob.size = static_cast<uint64_t>(status.st_size);
  blob.identity = {status.st_dev,
                   status.st_ino,
                   blob.size,
                   status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec,
                   status.st_ctim.tv_sec * 1'000'000'000LL + status.st_ctim.tv_nsec,
                   ""};
  blob.fd = fd->get();
  blob.handle = fd;
  return blob;
}

// Nothing of the file stays in the page cache.
inline void drop(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY));
  ::fsync(fd.get());
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
}

// Brings in the parts of `run` bytes for which wanted(i) holds, and nothing else.
inline void warm_parts(const std::string& path, uint64_t run,
                       const std::function<bool(uint64_t)>& wanted) {
  const Fd fd(::open(path.c_str(), O_RDONLY));
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM);
  std::vector<char> bytes(run);
  const auto size = std::filesystem::file_size(path);
  for (uint64_t i = 0; i * run < size; ++i) {
    if (!wanted(i)) continue;
    ASSERT_GT(::pread(fd.get(), bytes.data(), run, static_cast<off_t>(i * run)), 0);
  }
}

inline void warm(const std::string& path) {
  warm_parts(path, 1U << 20, [](uint64_t) { return true; });
}

// The truth, for a privileged caller: which pages of the file are resident.
inline std::vector<bool> resident_pages(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY));
  const auto size = std::filesystem::file_size(path);
  std::vector<unsigned char> answers((size + 4095) / 4096);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  ::mincore(data, size, answers.data());
  ::munmap(data, size);
  std::vector<bool> pages;
  for (const auto answer : answers) pages.push_back((answer & 1) != 0);
  return pages;
}

// Runs `body` in a child as another user; the child's exit code comes back.
inline int run_as(uid_t user, const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (user != 0 && (::setgid(user) != 0 || ::setuid(user) != 0)) ::_exit(99);
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

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
    const std::string path = (kind_ == "plain" ? at() : root_ + "/lower") + "/" + name;
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

  [[nodiscard]] std::string at() const { return root_ + "/at"; }
  [[nodiscard]] std::string path(const std::string& name) const { return at() + "/" + name; }

  std::string refusal;

 private:
  std::string kind_;
  std::string root_;
  bool mounted_ = false;
};

}  // namespace inrush::testing_places
