#include "inrush/codecs/storage_sum.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <span>

#include "inrush/base/align.h"
#include "inrush/base/parallel.h"
#include "inrush/codecs/crc32.h"
#include "inrush/core/quoted.h"
#include "inrush/shim/crc.h"

namespace inrush {
namespace {

constexpr uint64_t kPiece = 4 * kMiB;
constexpr uint64_t kStretch = kMiB;
constexpr size_t kReaders = 4;                              // each with a stretch in memory
constexpr auto kLookEvery = std::chrono::milliseconds(50);  // whether it was stopped

void stop_if(bool stopped) {
  if (stopped) throw Error(ErrorCode::cancelled, "the load was stopped");
}

class StorageDecoder final : public Decoder {
 public:
  StorageDecoder(const TensorInfo& tensor, std::string where, std::shared_ptr<StorageSum> storage)
      : where_(std::move(where)),
        offset_(tensor.offset),
        size_(tensor.size),
        compares_(tensor.strides.empty()),
        storage_(std::move(storage)) {}

  [[nodiscard]] DecoderTraits traits() const override { return {}; }

  void update(uint64_t, std::span<std::byte> data) override {
    if (compares_) crc_ = crc32(crc_, data);
  }

  std::string finish() override {
    storage_->check(stopped_);
    const uint32_t expected = compares_ ? storage_->part(offset_, size_) : 0;
    if (crc_ == expected) return {};
    throw Error(ErrorCode::data,
                fmt::format("{}: its CRC-32 is {:08x}, but {:08x} is expected from its storage",
                            where_, crc_, expected));
  }

  void stop() override { stopped_ = true; }

 private:
  const std::string where_;
  const uint64_t offset_;
  const uint64_t size_;
  const bool compares_;
  const std::shared_ptr<StorageSum> storage_;
  std::atomic<bool> stopped_ = false;
  uint32_t crc_ = 0;
};

}  // namespace

uint32_t crc32_of(Store& store, const Blob& blob, uint64_t offset, uint64_t size,
                  const std::function<bool()>& stopped) {
  std::vector<std::byte> buffer(std::min(size, kStretch));
  uint32_t crc = 0;
  while (size > 0) {
    stop_if(stopped && stopped());
    const std::span stretch = std::span(buffer).first(std::min(size, kStretch));
    store.read(blob, offset, stretch);
    crc = crc32(crc, stretch);
    offset += stretch.size();
    size -= stretch.size();
  }
  return crc;
}

StorageSum::StorageSum(Store& store, const Blob& blob, std::string what)
    : store_(store), blob_(blob), what_(std::move(what)) {}

void StorageSum::set_expected(uint64_t offset, uint64_t size, uint32_t crc32) {
  offset_ = offset;
  size_ = size;
  expected_ = crc32;
  for (uint64_t at = 0; at < size; at += kPiece) cuts_.emplace_back(offset + at, 0);
  cuts_.emplace_back(offset + size, 0);
}

void StorageSum::add_part(uint64_t offset, uint64_t size) {
  cuts_.emplace_back(offset, 0);
  cuts_.emplace_back(offset + size, 0);
}

void StorageSum::check(const std::atomic<bool>& stopped) {
  std::unique_lock lock(mutex_);
  while (reading_) {
    changed_.wait_for(lock, kLookEvery);
    stop_if(stopped);
  }
  if (!read_) {
    reading_ = true;
    lock.unlock();
    std::exception_ptr trouble;
    try {
      read(stopped);
    } catch (...) {
      trouble = std::current_exception();
    }
    lock.lock();
    reading_ = false;
    read_ = trouble == nullptr;
    changed_.notify_all();
    if (trouble) std::rethrow_exception(trouble);
  }
  if (failed_) throw *failed_;
}

void StorageSum::read(const std::atomic<bool>& stopped) {
  std::sort(cuts_.begin(), cuts_.end());
  cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
  parallel_for(cuts_.size() - 1, kReaders, [&](size_t i) {
    stop_if(stopped);
    const uint64_t begin = cuts_[i].first;
    cuts_[i + 1].second = crc32_of(store_, blob_, begin, cuts_[i + 1].first - begin);
  });
  for (size_t i = 1; i < cuts_.size(); ++i) {
    const auto [begin, before] = cuts_[i - 1];
    auto& [end, crc] = cuts_[i];
    crc = static_cast<uint32_t>(crc_joined(CrcKind::crc32, before, crc, end - begin));
  }
  const uint32_t found = cuts_.back().second;
  if (found != expected_) {
    failed_.emplace(ErrorCode::data,
                    fmt::format("verify {} [{}, +{}): {}: its CRC-32 is {:08x}, but {:08x} is "
                                "expected",
                                blob_.name, offset_, size_, what_, found, expected_));
  }
}

uint32_t StorageSum::part(uint64_t offset, uint64_t size) const {
  const auto before = [this](uint64_t at) {
    return std::lower_bound(cuts_.begin(), cuts_.end(), std::pair(at, uint32_t{0}))->second;
  };
  // What comes before is joined a second time: in this field that takes it away.
  return static_cast<uint32_t>(
      crc_joined(CrcKind::crc32, before(offset), before(offset + size), size));
}

std::unique_ptr<Decoder> make_storage_check(const TensorInfo& tensor, const std::string& file,
                                            std::shared_ptr<StorageSum> storage) {
  std::string where = fmt::format("verify {} [{}, +{}): tensor {}", file, tensor.offset,
                                  tensor.size, quoted(tensor.name));
  return std::make_unique<StorageDecoder>(tensor, std::move(where), std::move(storage));
}

}  // namespace inrush
