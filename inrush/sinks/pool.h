// A Pool gives tensors memory out of a fixed number of bytes and takes it back as they die, so that
// a stream of tensors runs through the same few blocks: a block is used again only once nobody can
// see it. Thread-safe; a block that somebody keeps outlives the pool's other owners.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "inrush/core/allocator.h"

namespace inrush {

class Pool : public std::enable_shared_from_this<Pool> {
 public:
  // `capacity` counts tensors' bytes; blocks round them up to whole pages.
  static std::shared_ptr<Pool> make(uint64_t capacity);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Memory for the bytes at `file_offset` of a blob, congruent to it modulo the page size, so that
  // direct reads can land there, unless it must be aligned and the file is not; or nothing while
  // too much is held.
  std::optional<Memory> take(uint64_t size, uint64_t file_offset, uint64_t alignment = 1);

  [[nodiscard]] uint64_t capacity() const { return capacity_; }
  // What take() gave and somebody still keeps.
  [[nodiscard]] uint64_t held() const;
  [[nodiscard]] uint64_t held_count() const;

 private:
  explicit Pool(uint64_t capacity) : capacity_(capacity) {}
  std::byte* block_of(uint64_t& size);
  void give_back(std::byte* block, uint64_t block_size, uint64_t size) noexcept;
  void drop_free(uint64_t most);

  const uint64_t capacity_;
  mutable std::mutex mutex_;
  std::multimap<uint64_t, std::byte*> free_;  // blocks by size
  uint64_t free_bytes_ = 0;
  uint64_t held_ = 0;
  uint64_t held_count_ = 0;
};

// Answers from a pool of its own: what fits now. Throws Error{memory} at once where what is due
// does not, saying who holds it.
Allocator pool_allocator(uint64_t capacity);

}  // namespace inrush
