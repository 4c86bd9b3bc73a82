#include "inrush/sinks/pool.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/madvise.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

uint64_t page_size() {
  static const auto size = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace

std::shared_ptr<Pool> Pool::make(uint64_t capacity) {
  return std::shared_ptr<Pool>(new Pool(capacity));
}

Pool::~Pool() { drop_free(0); }

uint64_t Pool::held() const {
  const std::lock_guard lock(mutex_);
  return held_;
}

uint64_t Pool::held_count() const {
  const std::lock_guard lock(mutex_);
  return held_count_;
}

std::optional<Memory> Pool::take(uint64_t size, uint64_t file_offset, uint64_t alignment) {
  const uint64_t shift = is_aligned(file_offset, alignment) ? file_offset % page_size() : 0;
  uint64_t block_size = align_up(shift + size + 1, page_size());
  const std::lock_guard lock(mutex_);
  if (held_ + size > capacity_) return std::nullopt;
  std::byte* const block = block_of(block_size);
  held_ += size;
  ++held_count_;
  Memory memory;
  memory.data = block + shift;
  memory.size = size;
  memory.owner = {memory.data, [pool = shared_from_this(), block, block_size, size](void*) {
                    pool->give_back(block, block_size, size);
                  }};
  return memory;
}

// A free block of about this size, or one from the kernel. Sets `size` to what it has.
std::byte* Pool::block_of(uint64_t& size) {
  const auto found = free_.lower_bound(size);
  if (found != free_.end() && found->first <= size + size / 8) {
    std::byte* const block = found->second;
    size = found->first;
    free_bytes_ -= size;
    free_.erase(found);
    return block;
  }
  const uint64_t left = capacity_ > held_ + size ? capacity_ - held_ - size : 0;
  drop_free(left);
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::memory, fmt::format("allocate {} bytes for a tensor", size));
  }
  advise_huge_pages(memory, size);
  return static_cast<std::byte*>(memory);
}

void Pool::give_back(std::byte* block, uint64_t block_size, uint64_t size) noexcept {
  const std::lock_guard lock(mutex_);
  held_ -= size;
  --held_count_;
  try {
    free_.emplace(block_size, block);
    free_bytes_ += block_size;
  } catch (const std::bad_alloc&) {
    ::munmap(block, block_size);
  }
}

// The largest go first: few calls give back much.
void Pool::drop_free(uint64_t most) {
  while (free_bytes_ > most) {
    const auto last = std::prev(free_.end());
    ::munmap(last->second, last->first);
    free_bytes_ -= last->first;
    free_.erase(last);
  }
}

Allocator pool_allocator(uint64_t capacity) {
  return [pool = Pool::make(capacity)](std::span<const MemoryRequest> requests) {
    std::vector<Memory> answer;
    for (const MemoryRequest& request : requests) {
      std::optional<Memory> memory =
          pool->take(request.size, request.file_offset, request.alignment);
      if (!memory && !request.due) break;
      if (!memory) {
        throw Error(
            ErrorCode::memory,
            fmt::format(
                "tensor {} needs {} bytes, and {} of the buffer's {} are held by {} tensors "
                "that the caller keeps or takes next: drop or copy those that are kept, or "
                "give it a larger buffer_size",
                request.name, request.size, pool->held(), pool->capacity(), pool->held_count()));
      }
      answer.push_back(std::move(*memory));
    }
    return answer;
  };
}

}  // namespace inrush
