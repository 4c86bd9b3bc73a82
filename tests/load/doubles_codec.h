// Doubles of what works on bytes on their way: a cipher that rewrites them where they lie, and an
// upload that only appends, in parts.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/decoder.h"
#include "inrush/core/error.h"
#include "inrush/core/writer.h"

namespace inrush::test {

// The key stream of a tensor: any of its bytes can be made alone.
inline std::byte key_byte(uint64_t key, uint64_t offset) {
  const uint64_t mixed = (key ^ (offset / 8 * 0x9E3779B97F4A7C15ULL)) * 0xBF58476D1CE4E5B9ULL;
  return static_cast<std::byte>(mixed >> (8 * (offset % 8)));
}

// "Decrypts" in place, in whole chunks, each of them once. Ends with Error{data} if one is missing.
class XorDecoder final : public Decoder {
 public:
  static constexpr uint64_t kChunk = 1024;

  XorDecoder(uint64_t key, uint64_t size, DecodeOrder order)
      : key_(key), seen_((size + kChunk - 1) / kChunk), size_(size), order_(order) {}

  [[nodiscard]] DecoderTraits traits() const override { return {kChunk, order_, true}; }

  void update(uint64_t offset, std::span<std::byte> data) override {
    const uint64_t end = offset + data.size();
    if (offset % kChunk != 0 || (end % kChunk != 0 && end != size_) || end > size_) {
      throw Error(ErrorCode::usage,
                  fmt::format("xor: [{}, {}) is not of whole chunks", offset, end));
    }
    if (order_ == DecodeOrder::in_order && offset != decoded_) {
      throw Error(ErrorCode::usage, fmt::format("xor: {} came before {}", offset, decoded_));
    }
    for (uint64_t chunk = offset / kChunk; chunk * kChunk < end; ++chunk) {
      if (seen_[chunk]) throw Error(ErrorCode::usage, fmt::format("xor: chunk {} again", chunk));
      seen_[chunk] = true;
    }
    for (uint64_t i = 0; i < data.size(); ++i) data[i] ^= key_byte(key_, offset + i);
    decoded_ += data.size();
  }

  std::string finish() override {
    if (decoded_ == size_) return fmt::format("xor of {} bytes", size_);
    throw Error(ErrorCode::data, fmt::format("xor: {} of {} bytes", decoded_, size_));
  }

 private:
  uint64_t key_;
  std::vector<bool> seen_;
  uint64_t size_;
  DecodeOrder order_;
  uint64_t decoded_ = 0;
};

// Where uploads end up. One thread.
struct Bucket {
  std::map<std::string, std::vector<std::byte>> objects;
  int open_uploads = 0;
};

// A multipart upload: parts in order, all but the last of a least size, seen only when complete.
// What breaks that is refused as a real server would refuse it.
class MultipartWriter final : public Writer {
 public:
  MultipartWriter(Bucket& bucket, std::string name, const WriterTraits& traits)
      : bucket_(bucket), name_(std::move(name)), traits_(traits) {
    ++bucket_.open_uploads;
  }
  ~MultipartWriter() override { abort(); }

  [[nodiscard]] WriterTraits traits() const override { return traits_; }

  void create(uint64_t size) override {
    size_ = size;
    const uint64_t parts = traits_.most_parts;
    if (parts > 0 && size > parts * traits_.largest_part) {
      refuse(fmt::format("{} bytes do not fit into {} parts", size, parts));
    }
  }

  void write(uint64_t offset, std::span<const std::byte> data) override {
    if (offset != bytes_.size()) refuse(fmt::format("offset {} after {}", offset, bytes_.size()));
    if (short_part_) refuse("EntityTooSmall");
    if (data.empty() || data.size() > traits_.largest_part) refuse("EntityTooLarge");
    if (traits_.most_parts > 0 && parts_ == traits_.most_parts) refuse("too many parts");
    short_part_ = data.size() < traits_.smallest_part;
    bytes_.insert(bytes_.end(), data.begin(), data.end());
    ++parts_;
  }

  void finish() override {
    if (bytes_.size() != size_) refuse(fmt::format("{} of {} bytes", bytes_.size(), size_));
    bucket_.objects[name_] = std::move(bytes_);
    abort();
  }

  void abort() noexcept override {
    if (open_) --bucket_.open_uploads;
    open_ = false;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorCode::source, fmt::format("write double://bucket/{}: {}", name_, why));
  }

  Bucket& bucket_;
  std::string name_;
  WriterTraits traits_;
  std::vector<std::byte> bytes_;
  uint64_t size_ = 0;
  uint32_t parts_ = 0;
  bool short_part_ = false;
  bool open_ = true;
};

}  // namespace inrush::test
