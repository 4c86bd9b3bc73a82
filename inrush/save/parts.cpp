#include "inrush/save/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/parallel.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Block = std::unique_ptr<std::byte, Free>;

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
    const size_t width = traits_.random ? std::max(traits_.width, 1U) : 1;
    parallel_for((total_ + size_ - 1) / size_, width, [this](size_t i) { write_part(i); });
    writer_.finish();
  }

 private:
  void write_part(size_t i) {
    const uint64_t offset = i * size_;
    const uint64_t size = std::min(size_, total_ - offset);
    // The last extent that begins at or before the part; empty extents begin where the next one
    // does.
    const auto next = std::upper_bound(begins_.begin(), begins_.end(), offset);
    const size_t first = static_cast<size_t>(next - begins_.begin()) - 1;
    const Extent& extent = extents_[first];
    const uint64_t inside = offset - begins_[first];
    if (extent.data != nullptr && extent.size - inside >= size &&
        is_aligned(extent.data + inside, traits_.memory_align)) {
      writer_.write(offset, {extent.data + inside, size});
      return;
    }
    Block block = take_block();
    gather(first, inside, {block.get(), size});
    writer_.write(offset, {block.get(), size});
    const std::scoped_lock lock(mutex_);
    blocks_.push_back(std::move(block));
  }

  void gather(size_t extent, uint64_t inside, std::span<std::byte> target) const {
    for (; !target.empty(); ++extent, inside = 0) {
      const Extent& from = extents_[extent];
      const size_t count = std::min<uint64_t>(from.size - inside, target.size());
      if (count == 0) continue;
      if (from.data != nullptr) {
        std::memcpy(target.data(), from.data + inside, count);
      } else {
        from.read(inside, target.first(count));
      }
      target = target.subspan(count);
    }
  }

  Block take_block() {
    {
      const std::scoped_lock lock(mutex_);
      if (!blocks_.empty()) {
        Block block = std::move(blocks_.back());
        blocks_.pop_back();
        return block;
      }
    }
    const uint64_t align = std::max<uint64_t>(traits_.memory_align, alignof(std::max_align_t));
    const uint64_t room = align_up(std::min(size_, total_), align);
    Block block(static_cast<std::byte*>(std::aligned_alloc(align, room)));
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
  WriterTraits traits_;
  std::mutex mutex_;
  std::vector<Block> blocks_;  // unused ones
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
