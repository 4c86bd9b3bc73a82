// S3 gives the checksum of a whole object to HEAD and to GET without a Range, where x-amz-checksum-
// mode is ENABLED; parts of it come with none, or with that of an upload's part. A composite one,
// of the parts' checksums, ends with "-" and their number, or is said to be so.
#include "inrush/net/content_sum.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "inrush/base/base64.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

// Big-endian in base64.
std::optional<uint64_t> value_of(const std::string& text, CrcKind kind) {
  const std::optional<std::string> bytes = base64_decoded(text);
  if (!bytes || bytes->size() != crc_size(kind)) return std::nullopt;
  uint64_t value = 0;
  for (const char c : *bytes) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

}  // namespace

std::optional<KnownSum> known_sum(const ResponseHead& head) {
  if (head.header("x-amz-checksum-type") == "COMPOSITE") return std::nullopt;
  constexpr std::array<std::pair<const char*, CrcKind>, 3> kHeaders{{
      {"x-amz-checksum-crc64nvme", CrcKind::crc64nvme},
      {"x-amz-checksum-crc32c", CrcKind::crc32c},
      {"x-amz-checksum-crc32", CrcKind::crc32},
  }};
  for (const auto& [name, kind] : kHeaders) {
    if (head.status == 206) break;  // of a part, whatever the server may mean by it
    if (const auto value = value_of(head.header(name), kind)) return KnownSum{kind, *value};
  }
  const std::string hashes = head.header("x-goog-hash");
  const size_t at = hashes.find("crc32c=");
  if (at == std::string::npos) return std::nullopt;
  const std::string text = hashes.substr(at + 7, hashes.find(',', at) - at - 7);
  const auto value = value_of(text, CrcKind::crc32c);
  return value ? std::optional(KnownSum{CrcKind::crc32c, *value}) : std::nullopt;
}

void ContentSum::keep_head(std::vector<std::byte> head) {
  const std::lock_guard lock(mutex_);
  if (!verified_ && head_.empty()) head_ = std::move(head);
}

bool ContentSum::verified() const {
  const std::lock_guard lock(mutex_);
  return verified_;
}

bool ContentSum::overlaps(uint64_t offset, uint64_t size) const {
  const auto after = parts_.upper_bound(offset);
  if (after != parts_.end() && after->first < offset + size) return true;
  if (after == parts_.begin()) return false;
  const auto& [begin, part] = *std::prev(after);
  return begin + part.size > offset;
}

void ContentSum::add(uint64_t offset, std::span<const std::byte> bytes) {
  const auto taken = [&] { return verified_ || bytes.empty() || overlaps(offset, bytes.size()); };
  {
    const std::lock_guard lock(mutex_);
    if (taken()) return;
  }
  const uint64_t crc = crc_of(known_.kind, 0, bytes);
  const std::lock_guard lock(mutex_);
  if (taken()) return;
  parts_.emplace(offset, Part{bytes.size(), crc});
  missing_ -= std::min<uint64_t>(missing_, bytes.size());
  if (missing_ > head_.size()) return;
  const std::optional<uint64_t> whole = joined();
  if (!whole) return;
  if (*whole != known_.value) {
    const size_t digits = 2 * crc_size(known_.kind);
    throw Error(ErrorCode::data,
                fmt::format("the content's {} is {:0{}x}, and the store says {:0{}x}",
                            crc_name(known_.kind), *whole, digits, known_.value, digits));
  }
  verified_ = true;
  parts_.clear();
  head_ = {};
}

// With the lock held; nothing while bytes are missing that the head does not have.
std::optional<uint64_t> ContentSum::joined() const {
  uint64_t crc = 0;
  uint64_t at = 0;
  const auto fill = [&](uint64_t end) {
    if (end == at) return true;
    if (end > head_.size()) return false;
    crc = crc_of(known_.kind, crc, std::span(head_).subspan(at, end - at));
    at = end;
    return true;
  };
  for (const auto& [begin, part] : parts_) {
    if (!fill(begin)) return std::nullopt;
    crc = crc_joined(known_.kind, crc, part.crc, part.size);
    at += part.size;
  }
  return fill(size_) ? std::optional(crc) : std::nullopt;
}

}  // namespace inrush
