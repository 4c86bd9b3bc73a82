#include "inrush/sinks/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"

namespace inrush {

std::shared_ptr<Arena> Arena::reserve(std::span<const Blob> blobs, bool looks) {
  std::shared_ptr<Arena> arena(new Arena);
  arena->starts_.reserve(blobs.size());
  for (const Blob& blob : blobs) {
    arena->starts_.push_back(arena->size_);
    // One page more than the blob, so that an aligned read of its tail has room.
    arena->size_ += align_up(blob.size + 1, kBase);
  }
  arena->reserved_ = arena->size_ + kBase;
  // NORESERVE: address space only; pages are charged as they are touched.
  void* memory = ::mmap(nullptr, arena->reserved_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw system_error(ErrorCode::memory,
                       fmt::format("reserve {} bytes of address space", arena->reserved_), errno);
  }
  arena->reservation_ = static_cast<std::byte*>(memory);
  const auto address = reinterpret_cast<uintptr_t>(memory);
  arena->base_ = arena->reservation_ + (align_up(address, kBase) - address);
  if (looks) arena->looked_ = std::vector<std::atomic<bool>>(arena->size_ / kPrepared + 1);
  arena->users_ = std::make_unique<std::atomic<uint32_t>[]>(arena->size_ / kExtent);
  return arena;
}

Arena::~Arena() {
  if (reservation_ != nullptr) ::munmap(reservation_, reserved_);
}

void Arena::place_mapping(const Blob& blob, uint32_t blob_index, uint64_t offset, uint64_t size) {
  void* placed =
      ::mmap(at(blob_index, offset), size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, blob.fd, static_cast<off_t>(offset));
  if (placed == MAP_FAILED) {
    throw system_error(ErrorCode::memory, fmt::format("map {} [{}, +{})", blob.name, offset, size),
                       errno);
  }
}

void Arena::expect(uint32_t blob, uint64_t offset, uint64_t size) {
  if (looked_.empty()) {
    advise_huge_pages(at(blob, offset), size);
  } else {
    expected_.emplace_back(at(blob, offset), size);
  }
}

void Arena::prepare(uint32_t blob, uint64_t offset, uint64_t size) {
  if (expected_.empty()) return;
  const uint64_t begin = starts_[blob] + offset;
  for (uint64_t i = begin / kPrepared; i * kPrepared < begin + size; ++i) {
    if (looked_[i] || looked_[i].exchange(true)) continue;
    std::byte* const first = base_ + i * kPrepared;
    std::byte* const last = first + kPrepared;
    const auto ends_before = [](std::span<std::byte> run, const std::byte* place) {
      return run.data() + run.size() <= place;
    };
    for (auto run = std::lower_bound(expected_.begin(), expected_.end(), first, ends_before);
         run != expected_.end() && run->data() < last; ++run) {
      std::byte* const start = std::max(run->data(), first);
      fresh_.advise(start, std::min(run->data() + run->size(), last) - start);
    }
  }
}

void Arena::pin(uint32_t blob, uint64_t offset, uint64_t size) {
  if (size == 0) return;
  const uint64_t first = (starts_[blob] + offset) / kExtent;
  const uint64_t last = (starts_[blob] + offset + size - 1) / kExtent;
  for (uint64_t i = first; i <= last; ++i) users_[i].fetch_add(1, std::memory_order_relaxed);
}

void Arena::drop(uint32_t blob, uint64_t offset, uint64_t size) noexcept {
  if (size == 0) return;
  const uint64_t first = (starts_[blob] + offset) / kExtent;
  const uint64_t last = (starts_[blob] + offset + size - 1) / kExtent;
  uint64_t run = first;  // neighbouring extents that nobody uses any more go back in one call
  for (uint64_t i = first; i <= last + 1; ++i) {
    if (i <= last && users_[i].fetch_sub(1, std::memory_order_acq_rel) == 1) continue;
    if (run < i) ::madvise(base_ + run * kExtent, (i - run) * kExtent, MADV_DONTNEED);
    run = i + 1;
  }
}

std::shared_ptr<void> Arena::hold(uint32_t blob, uint64_t offset, uint64_t size) {
  return {at(blob, offset), [self = shared_from_this(), blob, offset, size](void*) {
            self->drop(blob, offset, size);
          }};
}

}  // namespace inrush
