// Chunks are encrypted in memory of one chunk a thread and written at once; the header, which holds
// their codes, comes last. The caller's memory is only read.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/parallel.h"
#include "inrush/codecs/seal.h"
#include "inrush/core/error.h"
#include "inrush/formats/sealed.h"
#include "inrush/save.h"

namespace inrush {
namespace {

constexpr uint64_t kLengthSize = 8;  // of a safetensors header; a sealed file says it elsewhere

struct Free {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};

struct Chunk {
  const SaveTensor* tensor;
  uint64_t inside;  // of the tensor
  uint64_t offset;  // in the file
  uint64_t size;
};

std::vector<Chunk> chunks_of(const std::vector<SaveTensor>& tensors, uint64_t chunk_size) {
  std::vector<Chunk> chunks;
  uint64_t offset = 0;
  for (const SaveTensor& tensor : tensors) {
    const uint64_t size = size_of(tensor);
    for (uint64_t at = 0; at < size; at += chunk_size) {
      chunks.push_back({&tensor, at, offset + at, std::min(chunk_size, size - at)});
    }
    offset += size;
  }
  return chunks;
}

void fetch(const Chunk& chunk, std::span<std::byte> target) {
  if (chunk.tensor->read) {
    chunk.tensor->read(chunk.inside, target);
  } else {
    std::memcpy(target.data(), chunk.tensor->data.data() + chunk.inside, target.size());
  }
}

// Writes all chunks; their codes.
std::vector<std::array<std::byte, 16>> write_chunks(Writer& writer,
                                                    const std::vector<Chunk>& chunks,
                                                    const SecretKey& key, const SealedHead& head) {
  std::vector<std::array<std::byte, 16>> codes(chunks.size());
  const uint64_t align =
      std::max<uint64_t>(writer.traits().memory_align, alignof(std::max_align_t));
  const size_t threads = std::min<size_t>(writer.traits().width, chunks.size());
  std::atomic<size_t> next{0};
  parallel_for(threads, threads, [&](size_t) {
    const std::unique_ptr<std::byte, Free> block(
        static_cast<std::byte*>(std::aligned_alloc(align, align_up(head.chunk_size, align))));
    if (!block) {
      throw Error(ErrorCode::memory,
                  fmt::format("save: no memory for a chunk of {} bytes", head.chunk_size));
    }
    for (size_t i = next++; i < chunks.size(); i = next++) {
      const std::span data(block.get(), chunks[i].size);
      fetch(chunks[i], data);
      codes[i] = seal_chunk(data, key, i);
      writer.write(head.data_start() + chunks[i].offset, data);
    }
  });
  return codes;
}

}  // namespace

SealOptions::~SealOptions() {
  wipe(std::as_writable_bytes(std::span(passphrase)));
  if (key) wipe(*key);
}

struct Sealer::State {
  SealedHead head;
  SecretKey key;
  uint32_t next = 0;

  void write(Writer& writer, std::vector<SaveTensor> tensors,
             const SaveOptions::Metadata& metadata) {
    const std::string json = safetensors_header(tensors, metadata).substr(kLengthSize);
    const std::vector<Chunk> chunks = chunks_of(tensors, head.chunk_size);
    head.part = next++;
    head.chunks = chunks.size();
    head.json_size = json.size();
    head.tag = {};
    fill_random(head.salt);
    const SealKeys keys = seal_keys(key, head.salt);
    const uint64_t start = head.data_start();
    writer.create(start + (chunks.empty() ? 0 : chunks.back().offset + chunks.back().size));
    if (!writer.traits().random) {
      throw Error(ErrorCode::usage,
                  "save: sealed files cannot be written where one can only append");
    }
    const auto codes = write_chunks(writer, chunks, keys.data, head);
    std::vector<std::byte> before(start);
    const auto put_head = [&] {
      const auto encoded = head.encode();
      std::copy(encoded.begin(), encoded.end(), before.begin());
    };
    put_head();
    auto at = before.begin() + kSealedHeadSize;
    for (const auto& code : codes) at = std::copy(code.begin(), code.end(), at);
    std::memcpy(&*at, json.data(), json.size());
    head.tag = seal_tag(keys.header, before);
    put_head();
    writer.write(0, before);
    writer.finish();
  }
};

Sealer::Sealer(const SealOptions& options, size_t files) : state_(std::make_unique<State>()) {
  SealedHead& head = state_->head;
  if (options.chunk_size < kLeastSealedChunk || options.chunk_size > kMostSealedChunk) {
    throw Error(ErrorCode::usage,
                fmt::format("save: chunks of {} bytes: {} to {} are possible", options.chunk_size,
                            kLeastSealedChunk, kMostSealedChunk));
  }
  head.chunk_size = options.chunk_size;
  head.parts = static_cast<uint32_t>(files);
  fill_random(head.set);
  if (options.key) {
    state_->key = SecretKey(std::span<const std::byte, SecretKey::kSize>(*options.key));
    return;
  }
  head.derived = true;
  head.operations = options.operations;
  head.memory = options.memory;
  fill_random(head.derivation_salt);
  state_->key =
      derive_key(options.passphrase, head.derivation_salt, {options.operations, options.memory});
}

Sealer::~Sealer() = default;

void Sealer::write(Writer& writer, std::vector<SaveTensor> tensors,
                   const SaveOptions::Metadata& metadata) {
  try {
    state_->write(writer, std::move(tensors), metadata);
  } catch (...) {
    writer.abort();
    throw;
  }
}

}  // namespace inrush
