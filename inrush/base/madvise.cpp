#include "inrush/base/madvise.h"

#include <sys/mman.h>
#include <sys/utsname.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>

#include "inrush/base/align.h"
#include "inrush/base/balloon.h"

namespace inrush {

bool huge_pages_pay() {
  static const bool pay = !is_free_memory_taken_back();
  return pay;
}

int populate(void* data, size_t size, bool alone) {
  constexpr int kMostTries = 100;
  if (alone) ::madvise(data, size, MADV_RANDOM);
  int failed = EAGAIN;
  for (int tries = 0; tries < kMostTries && (failed == EINTR || failed == EAGAIN); ++tries) {
    failed = ::madvise(data, size, kPopulateRead) == 0 ? 0 : errno;
  }
  if (alone) ::madvise(data, size, MADV_NORMAL);
  return failed == EINTR ? EAGAIN : failed;
}

std::span<std::byte> huge_pages_in(void* data, size_t size) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uint64_t first = align_up(address, kHugePage);
  const uint64_t last = align_down(address + size, kHugePage);
  if (first >= last) return {};
  return {static_cast<std::byte*>(data) + (first - address), last - first};
}

bool ask_huge_pages(std::span<std::byte> pages) {
  return ::madvise(pages.data(), pages.size(), MADV_HUGEPAGE) == 0;
}

bool faults_fetch_huge_pages() {
  static const bool fetch = [] {
    utsname name{};
    int major = 0;
    int minor = 0;
    const bool known =
        ::uname(&name) == 0 && std::sscanf(name.release, "%d.%d", &major, &minor) == 2;
    return known && (major > 5 || (major == 5 && minor >= 18));
  }();
  return fetch;
}

bool fetch_whole(std::span<std::byte> pages, uint64_t file_size) {
  return file_size < kHugePage && faults_fetch_huge_pages() && ask_huge_pages(pages);
}

bool advise_huge_pages(void* data, size_t size) {
  const std::span<std::byte> pages = huge_pages_in(data, size);
  return !pages.empty() && huge_pages_pay() && ask_huge_pages(pages);
}

}  // namespace inrush
