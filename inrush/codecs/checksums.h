// Checksums that a format keeps beside a tensor, compared while its bytes come. A factory is used
// by any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "inrush/core/decoder.h"

namespace inrush {

struct Checksums {
  std::vector<std::byte> before;  // bytes that they cover in front of the tensor's
  std::optional<uint32_t> crc32;
  std::optional<std::array<std::byte, 32>> sha256;
};

// Those of the two that are wanted, of `before` and then `data`. Any thread.
Checksums checksums_of(std::span<const std::byte> before, std::span<const std::byte> data,
                       bool crc32, bool sha256);

// Asked for when the tensor's first bytes are there; they may have to be read.
using ChecksumSource = std::function<Checksums()>;

// Throws Error{data} that names tensor and file at the tensor's end if one differs.
std::unique_ptr<Decoder> make_checksums(const TensorInfo& tensor, std::string file,
                                        ChecksumSource expected);

// The same of those whose expected CRC-32 is all that is to be compared: in any order, by several
// threads, in passing.
std::unique_ptr<Decoder> make_crc_check(const TensorInfo& tensor, std::string file,
                                        ChecksumSource expected);

// Several decoders, one after the other, over each stretch of bytes; the digest is the last one's.
std::unique_ptr<Decoder> make_chain(const TensorInfo& tensor,
                                    std::vector<std::unique_ptr<Decoder>> decoders);

}  // namespace inrush
