#include "inrush/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "inrush/codecs/checksums.h"
#include "inrush/codecs/secretbox.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/tensorizer.h"

namespace inrush {
namespace {

// The records of .tensors files, and the keys that they ask for. Shared by the decoders.
class TensorsChecks : public std::enable_shared_from_this<TensorsChecks> {
 public:
  TensorsChecks(const Checkpoint& checkpoint, CheckOptions options)
      : checkpoint_(checkpoint), options_(std::move(options)) {
    for (const Blob& blob : checkpoint.index().blobs) {
      TensorsFile& file = files_.emplace_back(read_tensors_file(checkpoint.store(), blob));
      for (const auto& entry : file.entries) places_.emplace(entry.tensor.name, &entry);
      check_key(file, blob);
    }
  }

  ~TensorsChecks() {
    if (!options_.key) return;
    wipe(std::as_writable_bytes(std::span(options_.key->passphrase)));
    if (options_.key->key) wipe(*options_.key->key);
  }
  TensorsChecks(const TensorsChecks&) = delete;
  TensorsChecks& operator=(const TensorsChecks&) = delete;

  std::unique_ptr<Decoder> decoder(const TensorInfo& tensor) {
    std::vector<std::unique_ptr<Decoder>> all;
    const Blob& blob = checkpoint_.index().blobs[tensor.blob];
    if (tensor.encoding == kSecretbox) {
      TensorsRecord record = record_of(tensor);
      Secretbox box{record.cipher->chunk_size, record.cipher->nonce,
                    std::move(record.cipher->codes)};
      all.push_back(make_secretbox(tensor, blob.name, key_of(tensor, record), std::move(box)));
    }
    if (options_.verify != Verify::none) {
      all.push_back(make_checksums(tensor, blob.name, [self = shared_from_this(), tensor] {
        return self->checksums_of(tensor);
      }));
    }
    return make_chain(tensor, std::move(all));
  }

 private:
  void check_key(const TensorsFile& file, const Blob& blob) const {
    if (file.encrypted && !options_.key) {
      throw Error(ErrorCode::usage,
                  fmt::format("open {}: it is encrypted, and no key was given", blob.name));
    }
    if (!file.encrypted && options_.key) {
      throw Error(ErrorCode::usage,
                  fmt::format("open {}: a key was given, but it is not encrypted", blob.name));
    }
  }

  TensorsRecord record_of(const TensorInfo& tensor) {
    const Blob& blob = checkpoint_.index().blobs[tensor.blob];
    return read_tensors_record(checkpoint_.store(), blob, files_[tensor.blob],
                               *places_.at(tensor.name));
  }

  Checksums checksums_of(const TensorInfo& tensor) {
    TensorsRecord record = record_of(tensor);
    const bool sealed = record.cipher.has_value();
    const bool either = record.crc32.has_value() || record.sha256.has_value();
    if (!either || (options_.verify == Verify::crc && !record.crc32 && !sealed)) {
      throw Error(ErrorCode::data, fmt::format("verify {} [{}, +{}): tensor {}: it has no checksum",
                                               checkpoint_.index().blobs[tensor.blob].name,
                                               tensor.offset, tensor.size, quoted(tensor.name)));
    }
    if (options_.verify == Verify::crc) record.sha256.reset();
    return {std::move(record.hashed), record.crc32, record.sha256};
  }

  SecretKey key_of(const TensorInfo& tensor, const TensorsRecord& record) {
    const KeyOptions& given = *options_.key;
    if (given.key) return SecretKey(std::span<const std::byte, SecretKey::kSize>(*given.key));
    const auto refuse = [&](const std::string& reason) {
      throw Error(ErrorCode::usage, fmt::format("decrypt {}: tensor {}: {}",
                                                checkpoint_.index().blobs[tensor.blob].name,
                                                quoted(tensor.name), reason));
    };
    if (!record.derivation) refuse("encrypted with a key, and a passphrase was given");
    const TensorsKeyDerivation& derivation = *record.derivation;
    if (derivation.operations > given.most_operations || derivation.memory > given.most_memory) {
      refuse(fmt::format(
          "to derive its key takes {} operations and {} bytes of memory, over the "
          "limits of {} and {}",
          derivation.operations, derivation.memory, given.most_operations, given.most_memory));
    }
    const std::lock_guard lock(mutex_);  // the first derives, the others wait for it
    for (const auto& [known, key] : derived_) {
      if (known == derivation) return key;
    }
    if (derived_.size() == kMostDerived) refuse("more different key derivations than make sense");
    const SecretKey key =
        derive_key(given.passphrase, derivation.salt, {derivation.operations, derivation.memory});
    derived_.emplace_back(derivation, key);
    return key;
  }

  static constexpr size_t kMostDerived = 16;  // each may take a second

  const Checkpoint checkpoint_;
  CheckOptions options_;
  std::vector<TensorsFile> files_;                               // of each blob
  std::unordered_map<std::string, const TensorsEntry*> places_;  // by name
  std::mutex mutex_;
  std::vector<std::pair<TensorsKeyDerivation, SecretKey>> derived_;
};

}  // namespace

DecoderFactory checks_of(const Checkpoint& checkpoint, const CheckOptions& options) {
  const Index& index = checkpoint.index();
  const bool sealed = std::any_of(index.tensors.begin(), index.tensors.end(),
                                  [](const auto& t) { return t.encoding == kSecretbox; });
  if (options.verify == Verify::none && !options.key && !sealed) return {};
  if (index.format != "tensorizer") {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: {} has neither checksums nor encryption of its own; a "
                            "manifest verifies it",
                            checkpoint.uri(), index.format));
  }
  auto checks = std::make_shared<TensorsChecks>(checkpoint, options);
  return [checks](const TensorInfo& tensor) { return checks->decoder(tensor); };
}

DecoderFactory in_turn(DecoderFactory first, DecoderFactory second) {
  if (!first || !second) return first ? std::move(first) : std::move(second);
  return [first = std::move(first), second = std::move(second)](const TensorInfo& tensor) {
    std::vector<std::unique_ptr<Decoder>> both;
    both.push_back(first(tensor));
    both.push_back(second(tensor));
    return make_chain(tensor, std::move(both));
  };
}

}  // namespace inrush
