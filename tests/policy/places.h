// Files whose residency is made to order, blobs, and processes of other users, for tests.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
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

}  // namespace inrush::testing_places
