// What the raw loops over HTTP share: fresh huge pages, filled by some threads with a stretch each,
// and what that took.
#pragma once

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <thread>
#include <vector>

inline double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return time.tv_sec + time.tv_usec / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// fetch(memory, begin, end) puts bytes [begin, end) of the content to memory + begin; false if it
// cannot. Prints seconds and CPU seconds, and returns main()'s exit status.
template <typename Fetch>
int fill_fresh_memory(size_t size, size_t width, Fetch fetch) {
  const auto start = std::chrono::steady_clock::now();
  void* const room =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return 1;
  madvise(room, size, MADV_HUGEPAGE);
  std::vector<std::thread> threads;
  std::vector<char> whole(width);
  for (size_t i = 0; i < width; ++i) {
    threads.emplace_back([&, i] {
      whole[i] = fetch(static_cast<char*>(room), size * i / width, size * (i + 1) / width);
    });
  }
  for (auto& thread : threads) thread.join();
  if (std::find(whole.begin(), whole.end(), 0) != whole.end()) return 1;
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  std::printf("{\"seconds\": %.6f, \"cpu\": %.6f}\n", time.count(), cpu_seconds());
  return 0;
}
