// Byte layout of a sealed file, little-endian:
//
//   0x00  "INRSEAL1"
//   0x08  u64 key: 0 given, 1 from a passphrase
//   0x10  u64 operations   0x18  u64 memory   0x20  16 bytes of salt: Argon2id's
//   0x30  32 bytes of salt: the file's
//   0x50  16 bytes: the set   0x60  u32 part   0x64  u32 parts
//   0x68  u64 size of a chunk   0x70  u64 count of chunks   0x78  u64 size of the JSON
//   0x80  32 zero bytes
//   0xA0  32 bytes: the tag
//   0xC0  16 bytes for each chunk, then the JSON of a safetensors header, zeros up to a multiple of
//         4096, and the tensors
#include "inrush/formats/sealed.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/formats/bytes.h"
#include "inrush/formats/fault.h"
#include "inrush/formats/safetensors.h"

namespace inrush {
namespace {

constexpr std::string_view kMagic = "INRSEAL1";
constexpr uint64_t kReserved = 32;
constexpr uint64_t kCodeSize = 16;
constexpr uint64_t kMostChunks = 1ULL << 26;

template <size_t N>
void take_into(Bytes& bytes, std::array<std::byte, N>& target) {
  const auto taken = bytes.take(N);
  std::copy(taken.begin(), taken.end(), target.begin());
}

void put(std::byte*& at, std::span<const std::byte> bytes) {
  at = std::copy(bytes.begin(), bytes.end(), at);
}

void put(std::byte*& at, uint64_t number, size_t size) {
  for (size_t i = 0; i < size; ++i) *at++ = static_cast<std::byte>(number >> (8 * i) & 0xFF);
}

SealedHead parse_head(std::span<const std::byte> raw) {
  Bytes bytes(raw);
  bytes.take(kMagic.size());
  SealedHead head;
  const auto key = bytes.number<uint64_t>();
  if (key > 1) bytes.fail(fmt::format("a key of kind {}, which is not known", key));
  head.derived = key == 1;
  head.operations = bytes.number<uint64_t>();
  head.memory = bytes.number<uint64_t>();
  take_into(bytes, head.derivation_salt);
  take_into(bytes, head.salt);
  take_into(bytes, head.set);
  head.part = bytes.number<uint32_t>();
  head.parts = bytes.number<uint32_t>();
  if (head.part >= head.parts) {
    bytes.fail(fmt::format("part {} of {}", head.part, head.parts));
  }
  head.chunk_size = bytes.number<uint64_t>();
  if (head.chunk_size < kLeastSealedChunk || head.chunk_size > kMostSealedChunk) {
    bytes.fail(fmt::format("chunks of {} bytes: {} to {} are possible", head.chunk_size,
                           kLeastSealedChunk, kMostSealedChunk));
  }
  head.chunks = bytes.number<uint64_t>();
  head.json_size = bytes.number<uint64_t>();
  if (head.json_size > kLargestSafetensorsHeader || head.chunks > kMostChunks) {
    bytes.fail(fmt::format("{} bytes of JSON and {} chunks: over the limits of {} and {}",
                           head.json_size, head.chunks, kLargestSafetensorsHeader, kMostChunks));
  }
  const auto rest = bytes.take(kReserved);
  if (std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{}; })) {
    bytes.fail("bytes are used that this version does not know");
  }
  take_into(bytes, head.tag);
  return head;
}

SealedHead read_head(Store& store, const Blob& blob) {
  std::array<std::byte, kSealedHeadSize> raw;
  const auto bytes = std::span(raw).first(std::min<uint64_t>(blob.size, kSealedHeadSize));
  store.read(blob, 0, bytes);
  if (!begins_sealed(bytes)) throw_at(blob.name, 0, kMagic.size(), "no sealed file");
  SealedHead head;
  try {
    head = parse_head(bytes);
  } catch (const BytesFault& fault) {
    throw_at(blob.name, 0, kSealedHeadSize,
             fmt::format("bad head at byte {}: {}", fault.offset, fault.reason));
  }
  if (head.data_start() > blob.size) {
    throw_at(blob.name, 0, head.data_start(),
             fmt::format("the header reaches past the end of the file, which has {} bytes: it is "
                         "truncated",
                         blob.size));
  }
  return head;
}

// Chunks are counted from tensor to tensor.
void count_chunks(SealedFile& file, const Blob& blob) {
  uint64_t count = 0;
  for (TensorInfo& tensor : file.header.tensors) {
    file.first_chunk.push_back(count);
    count += tensor.size / file.head.chunk_size + (tensor.size % file.head.chunk_size != 0);
    if (tensor.size != 0) tensor.encoding = kSecretbox;
  }
  if (count != file.head.chunks) {
    throw_at(blob.name, 0, kSealedHeadSize,
             fmt::format("{} codes, but the tensors have {} chunks", file.head.chunks, count));
  }
}

}  // namespace

uint64_t SealedHead::data_start() const {
  return align_up(kSealedHeadSize + kCodeSize * chunks + json_size, kSealedDataAlignment);
}

std::array<std::byte, kSealedHeadSize> SealedHead::encode() const {
  std::array<std::byte, kSealedHeadSize> out{};
  std::byte* at = out.data();
  put(at, std::as_bytes(std::span(kMagic)));
  put(at, derived ? 1 : 0, 8);
  put(at, operations, 8);
  put(at, memory, 8);
  put(at, derivation_salt);
  put(at, salt);
  put(at, set);
  put(at, part, 4);
  put(at, parts, 4);
  put(at, chunk_size, 8);
  put(at, chunks, 8);
  put(at, json_size, 8);
  at += kReserved;
  put(at, tag);
  return out;
}

SealedFile read_sealed_file(Store& store, const Blob& blob) {
  SealedFile file;
  file.head = read_head(store, blob);
  const uint64_t start = file.head.data_start();
  file.covered.resize(start);
  store.read(blob, 0, file.covered);
  const std::byte* at = file.covered.data() + kSealedHeadSize;
  file.codes.resize(file.head.chunks);
  for (auto& code : file.codes) {
    std::copy_n(at, kCodeSize, code.begin());
    at += kCodeSize;
  }
  JsonText json(file.head.json_size);
  std::memcpy(json.data(), at, file.head.json_size);
  // As if the file were the safetensors file that it was made of.
  const uint64_t usual_start = kLengthSize + file.head.json_size;
  file.header = parse_safetensors_header(json, blob.size - start + usual_start, blob.name);
  for (TensorInfo& tensor : file.header.tensors) tensor.offset += start - usual_start;
  count_chunks(file, blob);
  const auto tag = std::as_writable_bytes(std::span(file.covered))
                       .subspan(kSealedHeadSize - file.head.tag.size(), file.head.tag.size());
  std::fill(tag.begin(), tag.end(), std::byte{});
  return file;
}

bool named_sealed(std::string_view entry) { return entry.ends_with(".sealed"); }

bool begins_sealed(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  return text.starts_with(kMagic);
}

Index index_sealed(Store& store, const std::vector<std::string>& entries) {
  Index index;
  index.format = "sealed";
  for (const auto& entry : entries) {
    Blob blob = store.open(entry);
    SealedFile file = read_sealed_file(store, blob);
    const auto number = static_cast<uint32_t>(index.blobs.size());
    for (TensorInfo& tensor : file.header.tensors) {
      tensor.blob = number;
      index.tensors.push_back(std::move(tensor));
    }
    index.blobs.push_back(std::move(blob));
    index.metadata.push_back(std::move(file.header.metadata));
  }
  index.finish();
  return index;
}

}  // namespace inrush
