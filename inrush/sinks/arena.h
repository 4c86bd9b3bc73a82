// An Arena is reserved address space for the bytes of a load's blobs: a blob's byte at offset x
// lies at base + x, base a multiple of 2 MiB, so that every blob is congruent for direct I/O and
// for mapping. Memory is given back in extents of 1 MiB as the last tensor on an extent dies; the
// address space goes with the arena. Thread-safe but for place_mapping and expect, which come
// first.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "inrush/base/fresh_memory.h"
#include "inrush/base/madvise.h"
#include "inrush/core/blob.h"

namespace inrush {

class Arena : public std::enable_shared_from_this<Arena> {
 public:
  static constexpr uint64_t kExtent = 1ULL << 20;
  static constexpr uint64_t kBase = kHugePage;
  // At once: more would be taken for the one that is looked at, less would be many calls.
  static constexpr uint64_t kPrepared = 4ULL << 20;

  // Reserves room for every blob. `looks`: before memory is written, at whether huge pages pay.
  // Throws Error{memory} if the address space is not to be had.
  static std::shared_ptr<Arena> reserve(std::span<const Blob> blobs,
                                        bool looks = !huge_pages_pay());

  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  [[nodiscard]] std::byte* at(uint32_t blob, uint64_t offset) const {
    return base_ + starts_[blob] + offset;
  }
  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] uint64_t size() const { return size_; }

  // Puts the blob's own pages, privately, at [offset, offset + size): offset a multiple of the
  // page size. Throws Error{memory} when the process has too many mappings.
  void place_mapping(const Blob& blob, uint32_t blob_index, uint64_t offset, uint64_t size);

  // Says that these bytes will be written: huge pages are asked for where whole ones fit, here or
  // in prepare(). In the order of offsets, before the first read.
  void expect(uint32_t blob, uint64_t offset, uint64_t size);
  // Said of what is about to be written. Keeps what has been.
  void prepare(uint32_t blob, uint64_t offset, uint64_t size);

  // Counts one user of the bytes. Balanced by drop(), or by the death of what hold() returns.
  void pin(uint32_t blob, uint64_t offset, uint64_t size);
  void drop(uint32_t blob, uint64_t offset, uint64_t size) noexcept;

  // An owner that drops a pin made earlier.
  std::shared_ptr<void> hold(uint32_t blob, uint64_t offset, uint64_t size);

 private:
  Arena() = default;
  std::byte* base_ = nullptr;
  std::byte* reservation_ = nullptr;
  uint64_t reserved_ = 0;
  uint64_t size_ = 0;
  std::vector<uint64_t> starts_;                    // of each blob, from base_
  std::unique_ptr<std::atomic<uint32_t>[]> users_;  // of each extent
  std::vector<std::span<std::byte>> expected_;      // by address
  FreshMemory fresh_;
  std::vector<std::atomic<bool>> looked_;  // at each kPrepared from base_; empty: nobody does
};

}  // namespace inrush
