// Files of random bytes for tests of engines, and the few things that every such test does.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/core/blob.h"

namespace inrush::testing {

using Bytes = std::vector<std::byte>;

inline Bytes random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size + 8);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, 8);
  }
  bytes.resize(size);
  return bytes;
}

// A folder that goes with its object.
class Folder {
 public:
  explicit Folder(const std::string& parent = std::filesystem::temp_directory_path().string()) {
    std::string pattern = parent + "/inrush-engines-XXXXXX";
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp in " + parent);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string write(const std::string& name, const Bytes& bytes) const {
    const std::string path = path_ + "/" + name;
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t count = ::write(fd.get(), bytes.data() + done, bytes.size() - done);
      if (count <= 0) throw std::runtime_error("write " + path);
      done += static_cast<size_t>(count);
    }
    return path;
  }

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline Blob open_blob(const std::string& path) {
  auto fd = std::make_shared<Fd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!*fd || ::fstat(fd->get(), &status) != 0) throw std::runtime_error("open " + path);
  Blob blob;
  blob.name = path;
  blob.size = static_cast<uint64_t>(status.st_size);
  blob.identity.size = blob.size;
  blob.identity.inode = status.st_ino;
  blob.fd = fd->get();
  blob.handle = fd;
  return blob;
}

inline void drop_pages(const Blob& blob) {
  ::fsync(blob.fd);  // dirty pages stay
  ::posix_fadvise(blob.fd, 0, 0, POSIX_FADV_DONTNEED);
}

// Anonymous memory (or a private mapping of a file) at a 2 MiB boundary.
class Arena {
 public:
  explicit Arena(uint64_t size, int fd = -1) : size_(align_up(size, 2 * kMiB)) {
    const uint64_t reserved = size_ + 2 * kMiB;
    raw_ = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    reserved_ = reserved;
    auto address = align_up(reinterpret_cast<uintptr_t>(raw_), 2 * kMiB);
    const int anonymous = fd < 0 ? MAP_ANONYMOUS : 0;
    data_ = static_cast<std::byte*>(::mmap(reinterpret_cast<void*>(address), size_,
                                           PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_FIXED | anonymous, fd, 0));
    if (data_ == MAP_FAILED) throw std::runtime_error("mmap");
  }
  ~Arena() { ::munmap(raw_, reserved_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] uint64_t size() const { return size_; }

 private:
  uint64_t size_;
  uint64_t reserved_ = 0;
  void* raw_ = nullptr;
  std::byte* data_ = nullptr;
};

inline size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

}  // namespace inrush::testing
