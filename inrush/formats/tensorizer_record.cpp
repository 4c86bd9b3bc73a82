// The header of a record; the tensor's bytes follow:
//
//   u64 size of the header  u16 module  u8 kind  u16 size, path  u8 size, dtype
//   u8 dimensions, u32 or u64 lengths
//   u16 size  u8 count of checksums, each: u8 which, u8 size, value
//   [u64 size  u16 count of crypt chunks, each: u64 size, u16 which, fields]  of encrypted files
//   padding, which no field announces
//   i64 size of the tensor's bytes: always the header's last
//
// Checksums: 0 CRC-32, 1 SHA-256, of the header and the tensor's plain bytes, where the values of
// the checksums are zeros and the crypt chunks, with their size, are left out.
// Crypt chunks: 1 u16 1, u64 operations, u64 memory, i32 2 (Argon2id), u16 size, salt
//               2 u64 bytes of a chunk, nonce of 24 bytes, u64 count, codes of 16 bytes
//               3 nonce, code: one chunk
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/bytes.h"
#include "inrush/formats/tensorizer.h"

namespace inrush {
namespace {

constexpr uint64_t kSmallestChunk = 1024;
constexpr uint64_t kChunkMultiple = 64;
constexpr int32_t kArgon2id = 2;

template <size_t N>
std::array<std::byte, N> array_of(std::span<const std::byte> bytes) {
  std::array<std::byte, N> out;
  std::copy_n(bytes.begin(), N, out.begin());
  return out;
}

class RecordParser {
 public:
  RecordParser(std::span<const std::byte> raw, const TensorsFile& file, const TensorsEntry& entry)
      : raw_(raw), bytes_(raw), file_(file), entry_(entry) {}

  TensorsRecord run() {
    if (bytes_.number<uint64_t>() != raw_.size())
      bytes_.fail("its size is not what the index says");
    record_.module = bytes_.number<uint16_t>();
    check_identity();
    read_checksums();
    if (file_.encrypted) {
      hidden_.first = bytes_.offset();
      Bytes crypt(bytes_.take(bytes_.number<uint64_t>()));
      hidden_.second = bytes_.offset();
      read_crypt(crypt);
    }
    if (bytes_.left() < 8) bytes_.fail("it is cut off");
    bytes_.take(bytes_.left() - 8);
    if (bytes_.number<uint64_t>() != entry_.tensor.size) {
      bytes_.fail("the size of the tensor's bytes is not what the index says");
    }
    check_cipher();
    settle_hashed();
    return std::move(record_);
  }

 private:
  // Readers take what a tensor is from here, others from the index: the two must be one.
  void check_identity() {
    const auto differs = [&](const char* what) {
      bytes_.fail(fmt::format("its {} is not what the index says", what));
    };
    if (bytes_.number<uint8_t>() != entry_.kind) differs("kind");
    if (bytes_.text(bytes_.number<uint16_t>()) != entry_.path) differs("name");
    if (bytes_.text(bytes_.number<uint8_t>()) != entry_.dtype) differs("dtype");
    if (bytes_.number<uint8_t>() != entry_.shape.size()) differs("shape");
    for (const uint64_t length : entry_.shape) {
      const uint64_t here = entry_.wide ? bytes_.number<uint64_t>() : bytes_.number<uint32_t>();
      if (here != length) differs("shape");
    }
  }

  void read_checksums() {
    const uint64_t before = bytes_.offset() + 2;
    Bytes block(bytes_.take(bytes_.number<uint16_t>()));
    const auto count = block.number<uint8_t>();
    for (int i = 0; i < count; ++i) {
      const auto which = block.number<uint8_t>();
      const auto size = block.number<uint8_t>();
      const uint64_t begin = before + block.offset();
      Bytes value(block.take(size));
      if (which == 0 && size == 4 && !record_.crc32) {
        record_.crc32 = value.number<uint32_t>();
      } else if (which == 1 && size == 32 && !record_.sha256) {
        record_.sha256 = array_of<32>(value.take(32));
      } else {
        bytes_.fail(fmt::format("checksum {} of {} bytes is not known, or stands there twice",
                                which, size));
      }
      values_.emplace_back(begin, size);
    }
  }

  void read_crypt(Bytes& crypt) {
    const auto count = crypt.number<uint16_t>();
    for (int i = 0; i < count; ++i) {
      Bytes chunk(crypt.take(crypt.number<uint64_t>()));
      const auto which = chunk.number<uint16_t>();
      if (which == 1 && !record_.derivation) {
        read_derivation(chunk);
      } else if ((which == 2 || which == 3) && !record_.cipher) {
        read_cipher(chunk, which == 2);
      } else {
        bytes_.fail(fmt::format("crypt chunk {} is not known, or stands there twice", which));
      }
    }
  }

  void read_derivation(Bytes& chunk) {
    TensorsKeyDerivation& derivation = record_.derivation.emplace();
    const auto method = chunk.number<uint16_t>();
    if (method != 1) bytes_.fail(fmt::format("key derivation {} is not known", method));
    derivation.operations = chunk.number<uint64_t>();
    derivation.memory = chunk.number<uint64_t>();
    const auto algorithm = chunk.number<int32_t>();
    const auto size = chunk.number<uint16_t>();
    if (algorithm != kArgon2id || size != derivation.salt.size()) {
      bytes_.fail(
          fmt::format("key derivation by algorithm {} with a salt of {} bytes", algorithm, size));
    }
    derivation.salt = array_of<16>(chunk.take(size));
  }

  void read_cipher(Bytes& chunk, bool many) {
    TensorsCipher& cipher = record_.cipher.emplace();
    const uint64_t size = entry_.tensor.size;
    cipher.chunk_size = many ? chunk.number<uint64_t>() : std::max<uint64_t>(size, 1);
    if (many && (cipher.chunk_size < kSmallestChunk || cipher.chunk_size % kChunkMultiple != 0)) {
      bytes_.fail(
          fmt::format("chunks of {} bytes: below 1024, or no multiple of 64", cipher.chunk_size));
    }
    cipher.nonce = array_of<24>(chunk.take(24));
    const uint64_t count = many ? chunk.number<uint64_t>() : 1;
    const uint64_t needed = size / cipher.chunk_size + (size % cipher.chunk_size != 0 ? 1 : 0);
    if (count != needed) {
      bytes_.fail(fmt::format("{} codes, but {} bytes in chunks of {} have {}", count, size,
                              cipher.chunk_size, needed));
    }
    for (uint64_t i = 0; i < count; ++i) cipher.codes.push_back(array_of<16>(chunk.take(16)));
  }

  void check_cipher() {
    if (entry_.tensor.size != 0 && file_.encrypted && !record_.cipher) {
      bytes_.fail("not encrypted, in a file that says it is");
    }
  }

  void settle_hashed() {
    record_.hashed.assign(raw_.begin(), raw_.end());
    for (const auto& [begin, size] : values_) {
      std::memset(record_.hashed.data() + begin, 0, size);
    }
    const auto at = [&](uint64_t offset) {
      return record_.hashed.begin() + static_cast<ptrdiff_t>(offset);
    };
    record_.hashed.erase(at(hidden_.first), at(hidden_.second));
  }

  std::span<const std::byte> raw_;
  Bytes bytes_;
  const TensorsFile& file_;
  const TensorsEntry& entry_;
  TensorsRecord record_;
  std::vector<std::pair<uint64_t, uint64_t>> values_;  // of checksums: begin, size
  std::pair<uint64_t, uint64_t> hidden_{0, 0};         // from the checksums: begin, end
};

}  // namespace

TensorsRecord read_tensors_record(Store& store, const Blob& blob, const TensorsFile& file,
                                  const TensorsEntry& entry) {
  std::vector<std::byte> raw(entry.tensor.offset - entry.header);
  store.read(blob, entry.header, raw);
  try {
    return RecordParser(raw, file, entry).run();
  } catch (const BytesFault& fault) {
    throw Error(ErrorCode::data,
                fmt::format("index {} [{}, +{}): header of tensor {}, at byte {}: {}", blob.name,
                            entry.header, raw.size(), quoted(entry.tensor.name), fault.offset,
                            fault.reason));
  }
}

}  // namespace inrush
