#include "inrush/save/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/aligned_bytes.h"
#include "inrush/base/parallel.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

// A writer that takes anything gets pieces of parts from here on where they are: copying a piece
// costs less than a system call only below it.
constexpr uint64_t kLeastBorrowed = 64 * kKiB;

// Where the parts begin: all of one size but the last.
uint64_t part_size(const WriterTraits& traits, uint64_t total) {
  uint64_t size = std::max(traits.best_part, traits.smallest_part);
  if (traits.most_parts > 0) {
    size = std::max(size, (total + traits.most_parts - 1) / traits.most_parts);
  }
  return std::max<uint64_t>(std::min(size, traits.largest_part), 1);
}

class Parts {
 public:
  Parts(Writer& writer, std::span<const Extent> extents) : writer_(writer), extents_(extents) {
    for (const Extent& extent : extents) {
      begins_.push_back(total_);
      total_ += extent.size;
    }
  }

  void write() {
    writer_.create(total_);
    traits_ = writer_.traits();
    size_ = part_size(traits_, total_);
    const bool loose = traits_.random && traits_.memory_align <= 1 && traits_.smallest_part <= 1 &&
                       traits_.most_parts == 0;
    if (loose) least_borrowed_ = kLeastBorrowed;
    const size_t width = traits_.random ? std::max(traits_.width, 1U) : 1;
    parallel_for((total_ + size_ - 1) / size_, width, [this](size_t i) { write_part(i); });
    writer_.finish();
  }

 private:
  void write_part(size_t i) {
    uint64_t offset = i * size_;
    const uint64_t size = std::min(size_, total_ - offset);
    // The last extent that begins at or before the part; empty ones begin where the next one does.
    const auto next = std::upper_bound(begins_.begin(), begins_.end(), offset);
    size_t at = static_cast<size_t>(next - begins_.begin()) - 1;
    uint64_t inside = offset - begins_[at];
    const uint64_t least = std::min(least_borrowed_, size);
    AlignedBytes block;
    size_t filled = 0;
    const auto flush = [&] {
      if (filled > 0) writer_.write(offset, {block.get(), filled});
      offset += std::exchange(filled, 0);
    };
    for (uint64_t left = size; left > 0; ++at, inside = 0) {
      const Extent& extent = extents_[at];
      const size_t count = std::min(extent.size - inside, left);
      left -= count;
      if (extent.data != nullptr && count >= least &&
          is_aligned(extent.data + inside, traits_.memory_align)) {
        flush();
        writer_.write(offset, {extent.data + inside, count});
        offset += count;
      } else if (count > 0) {
        if (!block) block = take_block();
        fetch(extent, inside, {block.get() + filled, count});
        filled += count;
      }
    }
    flush();
    if (block) give_back(std::move(block));
  }

  static void fetch(const Extent& extent, uint64_t inside, std::span<std::byte> target) {
    if (extent.data != nullptr) {
      std::memcpy(target.data(), extent.data + inside, target.size());
    } else {
      extent.read(inside, target);
    }
  }

  void give_back(AlignedBytes block) {
    const std::scoped_lock lock(mutex_);
    blocks_.push_back(std::move(block));
  }

  AlignedBytes take_block() {
    {
      const std::scoped_lock lock(mutex_);
      if (!blocks_.empty()) {
        AlignedBytes block = std::move(blocks_.back());
        blocks_.pop_back();
        return block;
      }
    }
    const uint64_t align = std::max<uint64_t>(traits_.memory_align, alignof(std::max_align_t));
    const uint64_t room = align_up(std::min(size_, total_), align);
    AlignedBytes block = allocate_aligned(align, room);
    if (!block) {
      throw Error(ErrorCode::memory, fmt::format("save: no memory for a part of {} bytes", room));
    }
    return block;
  }

  Writer& writer_;
  std::span<const Extent> extents_;
  std::vector<uint64_t> begins_;
  uint64_t total_ = 0;
  uint64_t size_ = 0;
  uint64_t least_borrowed_ = UINT64_MAX;  // a smaller piece of a part is copied
  WriterTraits traits_;
  std::mutex mutex_;
  std::vector<AlignedBytes> blocks_;  // unused ones
};

}  // namespace

void write_parts(Writer& writer, std::span<const Extent> extents) {
  try {
    Parts(writer, extents).write();
  } catch (...) {
    writer.abort();
    throw;
  }
}

}  // namespace inrush
