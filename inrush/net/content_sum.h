// The checksum that a store keeps of a whole content, and what has been seen of it: CRCs of parts
// can be joined, so it is checked although the parts come in any order. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inrush/shim/crc.h"
#include "inrush/wire/response.h"

namespace inrush {

struct KnownSum {
  CrcKind kind = CrcKind::crc32;
  uint64_t value = 0;
};

// The CRC of the whole content that the store says, as S3 (x-amz-checksum-...) and GCS
// (x-goog-hash) have it. Nothing where there is none, or one of its parts' checksums only.
std::optional<KnownSum> known_sum(const ResponseHead& head);

class ContentSum {
 public:
  ContentSum(const KnownSum& known, uint64_t size) : known_(known), size_(size), missing_(size) {}

  // The content's first bytes, which fill what no part covers: header and padding.
  void keep_head(std::vector<std::byte> head);

  // Takes in a part that has come. Throws Error{data} with the bare reason where all is there with
  // it, and is not what the store says. A part that overlaps another one is passed over.
  void add(uint64_t offset, std::span<const std::byte> bytes);

  // Whether all of it was seen, and was right.
  [[nodiscard]] bool verified() const;

 private:
  struct Part {
    uint64_t size = 0;
    uint64_t crc = 0;
  };
  [[nodiscard]] bool overlaps(uint64_t offset, uint64_t size) const;
  [[nodiscard]] std::optional<uint64_t> joined() const;

  const KnownSum known_;
  const uint64_t size_;
  mutable std::mutex mutex_;  // over what follows
  std::map<uint64_t, Part> parts_;
  std::vector<std::byte> head_;
  uint64_t missing_;  // bytes that no part covers
  bool verified_ = false;
};

}  // namespace inrush
