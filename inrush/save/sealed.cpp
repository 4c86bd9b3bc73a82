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
#include "inrush/base/aligned_bytes.h"
#include "inrush/base/cgroup.h"
#include "inrush/base/parallel.h"
#include "inrush/codecs/seal.h"
#include "inrush/core/error.h"
#include "inrush/formats/safetensors.h"
#include "inrush/formats/sealed.h"
#include "inrush/save.h"

namespace inrush {
namespace {

struct Chunk {
  const SaveTensor* tensor;
  size_t index;     // of the tensor
  uint64_t inside;  // of the tensor
  uint64_t offset;  // in the file
  uint64_t size;
};

std::vector<Chunk> chunks_of(const std::vector<SaveTensor>& tensors, uint64_t chunk_size) {
  std::vector<Chunk> chunks;
  uint64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t size = size_of(tensors[i]);
    for (uint64_t at = 0; at < size; at += chunk_size) {
      chunks.push_back({&tensors[i], i, at, offset + at, std::min(chunk_size, size - at)});
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

void write_chunks(Writer& writer, const std::vector<Chunk>& chunks, uint64_t chunk_size,
                  SealedPart& part) {
  const uint64_t align =
      std::max<uint64_t>(writer.traits().memory_align, alignof(std::max_align_t));
  const size_t threads = std::min<size_t>(writer.traits().width, chunks.size());
  std::atomic<size_t> next{0};
  parallel_for(threads, threads, [&](size_t) {
    const AlignedBytes block = allocate_aligned(align, chunk_size);
    if (!block) {
      throw Error(ErrorCode::memory,
                  fmt::format("save: no memory for a chunk of {} bytes", chunk_size));
    }
    for (size_t i = next++; i < chunks.size(); i = next++) {
      const std::span data(block.get(), chunks[i].size);
      fetch(chunks[i], data);
      part.encrypt(chunks[i].index, chunks[i].inside, data);
      writer.write(part.data_start() + chunks[i].offset, data);
    }
  });
}

}  // namespace

SealOptions::~SealOptions() {
  wipe(std::as_writable_bytes(std::span(passphrase)));
  if (key) wipe(*key);
}

struct SealedPart::State {
  SealedHead head;
  SealKeys keys;
  std::string json;
  std::vector<uint64_t> first;  // chunk of each tensor
  std::vector<std::array<std::byte, 16>> codes;
  std::atomic<uint64_t> encrypted = 0;  // chunks
};

SealedPart::SealedPart(std::unique_ptr<State> state) : state_(std::move(state)) {}
SealedPart::~SealedPart() = default;
SealedPart::SealedPart(SealedPart&&) noexcept = default;
SealedPart& SealedPart::operator=(SealedPart&&) noexcept = default;

uint64_t SealedPart::data_start() const { return state_->head.data_start(); }

void SealedPart::encrypt(size_t tensor, uint64_t inside, std::span<std::byte> data) {
  State& state = *state_;
  const uint64_t size = state.head.chunk_size;
  const uint64_t first = state.first.at(tensor) + inside / size;
  const uint64_t count = (data.size() + size - 1) / size;
  const bool last = tensor + 1 == state.first.size();
  const uint64_t end = last ? state.codes.size() : state.first[tensor + 1];
  if (inside % size != 0 || count > end - first) {
    throw Error(ErrorCode::usage, fmt::format("seal tensor {} [{}, +{}): it has no such chunks",
                                              tensor, inside, data.size()));
  }
  parallel_for(count, count > 1 ? ask_grants().cpus : 1, [&](size_t i) {
    const auto chunk = data.subspan(i * size, std::min<uint64_t>(size, data.size() - i * size));
    state.codes[first + i] = seal_chunk(chunk, state.keys.data, first + i);
  });
  state.encrypted += count;
}

std::vector<std::byte> SealedPart::header() {
  State& state = *state_;
  if (state.encrypted != state.codes.size()) {
    throw Error(ErrorCode::usage, fmt::format("seal: {} of {} chunks were encrypted",
                                              state.encrypted.load(), state.codes.size()));
  }
  std::vector<std::byte> before(data_start());
  const auto put_head = [&] {
    const auto encoded = state.head.encode();
    std::copy(encoded.begin(), encoded.end(), before.begin());
  };
  put_head();
  auto at = before.begin() + kSealedHeadSize;
  for (const auto& code : state.codes) at = std::copy(code.begin(), code.end(), at);
  std::memcpy(&*at, state.json.data(), state.json.size());
  state.head.tag = seal_tag(state.keys.header, before);
  put_head();
  return before;
}

struct Sealer::State {
  SealedHead head;
  SecretKey key;
  uint32_t next = 0;

  void write(Writer& writer, std::vector<SaveTensor> tensors, const SaveOptions::Metadata& metadata,
             Sealer& sealer) {
    std::string json = safetensors_header(tensors, metadata).substr(kLengthSize);
    std::vector<uint64_t> sizes;
    uint64_t total = 0;
    for (const SaveTensor& tensor : tensors) total += sizes.emplace_back(size_of(tensor));
    SealedPart part = sealer.begin(std::move(json), sizes);
    writer.create(part.data_start() + total);
    if (!writer.traits().random) {
      throw Error(ErrorCode::usage,
                  "save: sealed files cannot be written where one can only append");
    }
    write_chunks(writer, chunks_of(tensors, head.chunk_size), head.chunk_size, part);
    writer.write(0, part.header());
    writer.finish();
  }
};

SealedPart Sealer::begin(std::string json, std::span<const uint64_t> sizes) {
  auto part = std::make_unique<SealedPart::State>();
  SealedHead& head = part->head = state_->head;
  uint64_t chunks = 0;
  for (const uint64_t size : sizes) {
    part->first.push_back(chunks);
    chunks += (size + head.chunk_size - 1) / head.chunk_size;
  }
  head.part = state_->next++;
  head.chunks = chunks;
  head.json_size = json.size();
  fill_random(head.salt);
  part->keys = seal_keys(state_->key, head.salt);
  part->json = std::move(json);
  part->codes.resize(chunks);
  return SealedPart(std::move(part));
}

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
    state_->write(writer, std::move(tensors), metadata, *this);
  } catch (...) {
    writer.abort();
    throw;
  }
}

}  // namespace inrush
