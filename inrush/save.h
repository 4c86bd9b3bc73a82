// Saving safetensors: byte-identical to what safetensors itself writes, atomically. What is saved
// is not copied as a whole: parts of a few MiB go through a Writer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/dtype.h"
#include "inrush/core/storage.h"
#include "inrush/core/writer.h"

namespace inrush {

struct SaveTensor {
  std::string name;
  Dtype dtype = Dtype::u8;
  std::vector<uint64_t> shape;
  std::span<const std::byte> data;
  // Instead of data: fills `target` with the tensor's bytes from `offset` on, when they are due.
  // Called from several threads at once.
  std::function<void(uint64_t offset, std::span<std::byte> target)> read = nullptr;
};

// Bytes of the tensor's data.
uint64_t size_of(const SaveTensor& tensor);

// Encrypt what is saved: a sealed file, which docs/formats/sealed.md describes.
struct SealOptions {
  SealOptions() = default;
  SealOptions(const SealOptions&) = default;
  SealOptions& operator=(const SealOptions&) = default;
  ~SealOptions();  // wipes what is secret

  std::optional<std::array<std::byte, 32>> key;
  std::string passphrase;  // where there is no key: one is derived, at this cost
  uint64_t operations = 3;
  uint64_t memory = 256ULL << 20;    // bytes
  uint64_t chunk_size = 1ULL << 20;  // bytes encrypted at once
};

struct SaveOptions {
  using Metadata = std::optional<std::map<std::string, std::string>>;
  Metadata metadata{};
  bool sync = true;          // fsync the file and its folder before it takes its name
  StorageOptions storage{};  // of a remote place
  std::optional<SealOptions> seal{};
  // Asked between parts, on the threads that write; true ends the save with Error{cancelled}.
  std::function<bool()> stopped{};
};

struct ShardOptions {
  std::string filename_pattern = "model{suffix}.safetensors";
  uint64_t max_shard_size = 5'000'000'000;  // bytes of tensors; a larger tensor has its own file
  SaveOptions::Metadata metadata{};         // of the one file, or of the index of several
  SaveOptions::Metadata file_metadata{};    // of every file
  bool sync = true;
  StorageOptions storage{};           // of a remote place
  std::optional<SealOptions> seal{};  // all files but the index
  std::function<bool()> stopped{};    // as above
};

// Writes `path` through a temporary beside it, or the object of that URI, which is there when it is
// whole. Throws Error; then nothing is left behind.
void save_file(const std::string& path, std::vector<SaveTensor> tensors,
               const SaveOptions& options);

// Writes a checkpoint of one or several files, with an index where there are several, into
// `folder` or under a remote prefix, which is made if it is not there, and removes what an earlier
// save with this pattern left. Tensors are taken in the order given. Returns the names of the
// files, the index last. The files take their names when all are written; a reader that heeds the
// index never sees less than a whole without noticing. Throws Error.
std::vector<std::string> save_sharded(const std::string& folder, std::vector<SaveTensor> tensors,
                                      const ShardOptions& options);

// A safetensors file through any writer. Throws what that throws, after abort().
void write_safetensors(Writer& writer, std::vector<SaveTensor> tensors,
                       const SaveOptions::Metadata& metadata);

// One sealed file whose tensors are encrypted one by one, in any order; then its header is known.
class SealedPart {
 public:
  struct State;
  explicit SealedPart(std::unique_ptr<State> state);
  ~SealedPart();
  SealedPart(SealedPart&&) noexcept;
  SealedPart& operator=(SealedPart&&) noexcept;

  // Where the first tensor begins.
  [[nodiscard]] uint64_t data_start() const;

  // Encrypts bytes of a tensor in place: from a multiple of the chunk's size on, to another one or
  // the tensor's end. Each byte once; any thread, several at once.
  void encrypt(size_t tensor, uint64_t inside, std::span<std::byte> data);

  // All before the data. Throws Error{usage} if something was not encrypted yet.
  [[nodiscard]] std::vector<std::byte> header();

 private:
  std::unique_ptr<State> state_;
};

// Writes the files of one checkpoint sealed. The key is derived once. One thread.
class Sealer {
 public:
  Sealer(const SealOptions& options, size_t files);
  ~Sealer();
  Sealer(const Sealer&) = delete;
  Sealer& operator=(const Sealer&) = delete;

  // The next file. Throws what the writer throws, after abort(); Error{usage} where that can only
  // append.
  void write(Writer& writer, std::vector<SaveTensor> tensors,
             const SaveOptions::Metadata& metadata);

  // The next file, for whoever has its tensors one by one: the JSON of its safetensors header, and
  // the bytes of each tensor in the order of their offsets.
  SealedPart begin(std::string json, std::span<const uint64_t> sizes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The header that safetensors would write: 8 bytes of length, JSON, padding.
std::string safetensors_header(std::vector<SaveTensor>& tensors,
                               const SaveOptions::Metadata& metadata);

// A writer of a local file: temporary, fsync, rename.
std::unique_ptr<Writer> make_file_writer(const std::string& path, bool sync);

// A writer of a file of unfinished work: it has its name from the first byte on, what is in it
// stays, and abort() leaves it, for others to go on. What is missing at finish() is theirs to know.
std::unique_ptr<Writer> make_kept_writer(const std::string& path);

// A writer of what `place` names: a file of this machine, or one of a remote place.
std::unique_ptr<Writer> make_writer(const std::string& place, bool sync,
                                    const StorageOptions& storage);

}  // namespace inrush
