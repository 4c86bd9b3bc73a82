#include "inrush/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "inrush/base/parallel.h"
#include "inrush/codecs/checksums.h"
#include "inrush/codecs/seal.h"
#include "inrush/codecs/secretbox.h"
#include "inrush/codecs/storage_sum.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/pytorch.h"
#include "inrush/formats/sealed.h"
#include "inrush/formats/tensorizer.h"

namespace inrush {
namespace {

// The key that was given, or those that its passphrase leads to. Any thread.
class KeyRing {
 public:
  explicit KeyRing(const KeyOptions& given) : given_(given) {}

  // `where` begins what an error says.
  SecretKey key(const std::optional<TensorsKeyDerivation>& derivation, const std::string& where) {
    if (given_.key) return SecretKey(std::span<const std::byte, SecretKey::kSize>(*given_.key));
    const auto refuse = [&](const std::string& reason) {
      throw Error(ErrorCode::usage, where + ": " + reason);
    };
    if (!derivation) refuse("encrypted with a key, and a passphrase was given");
    if (derivation->operations > given_.most_operations ||
        derivation->memory > given_.most_memory) {
      refuse(fmt::format(
          "to derive its key takes {} operations and {} bytes of memory, over the "
          "limits of {} and {} (INRUSH_KEY_OPERATIONS and INRUSH_KEY_MEMORY raise them)",
          derivation->operations, derivation->memory, given_.most_operations, given_.most_memory));
    }
    const std::lock_guard lock(mutex_);  // the first derives, the others wait for it
    for (const auto& [known, key] : derived_) {
      if (known == *derivation) return key;
    }
    if (derived_.size() == kMostDerived) refuse("more different key derivations than make sense");
    const SecretKey key = derive_key(given_.passphrase, derivation->salt,
                                     {derivation->operations, derivation->memory});
    derived_.emplace_back(*derivation, key);
    return key;
  }

 private:
  static constexpr size_t kMostDerived = 16;  // each may take a second

  KeyOptions given_;
  std::mutex mutex_;
  std::vector<std::pair<TensorsKeyDerivation, SecretKey>> derived_;
};

// The records of one file. From afar, where each costs a round trip, more and more of them are
// fetched at once for as long as they are asked for in the file's order. Any thread.
class Records {
 public:
  Records(Store& store, const Blob& blob, const TensorsFile& file)
      : store_(store), blob_(blob), file_(file) {}

  TensorsRecord get(size_t entry) {
    if (blob_.fd >= 0) return read(entry);
    const std::lock_guard lock(mutex_);
    // A tensor that several decoders are made for asks again, and threads overtake one another.
    if (entry >= begin_ + ahead_.size()) fetch(entry);
    if (entry >= begin_ && ahead_[entry - begin_]) return *ahead_[entry - begin_];
    return read(entry);
  }

 private:
  static constexpr size_t kMost = 64;
  static constexpr size_t kWidth = 16;  // requests at once

  TensorsRecord read(size_t entry) {
    return read_tensors_record(store_, blob_, file_, file_.entries[entry]);
  }

  void fetch(size_t entry) {
    const bool goes_on = !ahead_.empty() && entry == begin_ + ahead_.size();
    const size_t count = goes_on ? std::min(2 * ahead_.size(), kMost) : 1;
    begin_ = entry;
    ahead_.assign(std::min(count, file_.entries.size() - entry), std::nullopt);
    parallel_for(ahead_.size(), kWidth, [&](size_t i) {
      try {
        ahead_[i] = read(entry + i);
      } catch (const Error&) {
        // Said when it is asked for, if ever.
      }
    });
  }

  Store& store_;
  const Blob& blob_;
  const TensorsFile& file_;
  std::mutex mutex_;
  size_t begin_ = 0;  // line of the first that is here
  std::vector<std::optional<TensorsRecord>> ahead_;
};

// The records of .tensors files, and the keys that they ask for. Shared by the decoders.
class TensorsChecks : public std::enable_shared_from_this<TensorsChecks> {
 public:
  TensorsChecks(const Checkpoint& checkpoint, const CheckOptions& options)
      : checkpoint_(checkpoint), verify_(options.verify) {
    if (options.key) keys_.emplace(*options.key);
    for (const Blob& blob : checkpoint.index().blobs) {
      TensorsFile& file = files_.emplace_back(read_tensors_file(checkpoint.store(), blob));
      const auto number = static_cast<uint32_t>(files_.size() - 1);
      records_.push_back(std::make_unique<Records>(checkpoint.store(), blob, file));
      for (size_t i = 0; i < file.entries.size(); ++i) {
        places_.emplace(file.entries[i].tensor.name, std::pair(number, i));
      }
      check_key(file, blob);
    }
  }

  std::unique_ptr<Decoder> decoder(const TensorInfo& tensor) {
    std::vector<std::unique_ptr<Decoder>> all;
    const Blob& blob = checkpoint_.index().blobs[tensor.blob];
    if (tensor.encoding == kSecretbox) {
      TensorsRecord record = record_of(tensor);
      Secretbox box{record.cipher->chunk_size, record.cipher->nonce,
                    std::move(record.cipher->codes)};
      all.push_back(make_secretbox(tensor, blob.name, key_of(tensor, record), std::move(box)));
    }
    if (verify_ != Verify::none) {
      const auto make = verify_ == Verify::crc ? make_crc_check : make_checksums;
      all.push_back(make(tensor, blob.name, [self = shared_from_this(), tensor] {
        return self->checksums_of(tensor);
      }));
    }
    return make_chain(tensor, std::move(all));
  }

 private:
  void check_key(const TensorsFile& file, const Blob& blob) const {
    if (file.encrypted && !keys_) {
      throw Error(ErrorCode::usage,
                  fmt::format("open {}: it is encrypted, and no key was given", blob.name));
    }
    if (!file.encrypted && keys_) {
      throw Error(ErrorCode::usage,
                  fmt::format("open {}: a key was given, but it is not encrypted", blob.name));
    }
  }

  TensorsRecord record_of(const TensorInfo& tensor) {
    const auto [file, entry] = places_.at(tensor.name);
    return records_[file]->get(entry);
  }

  Checksums checksums_of(const TensorInfo& tensor) {
    TensorsRecord record = record_of(tensor);
    const bool sealed = record.cipher.has_value();
    const bool either = record.crc32.has_value() || record.sha256.has_value();
    if (!either || (verify_ == Verify::crc && !record.crc32 && !sealed)) {
      throw Error(ErrorCode::data, fmt::format("verify {} [{}, +{}): tensor {}: it has no checksum",
                                               checkpoint_.index().blobs[tensor.blob].name,
                                               tensor.offset, tensor.size, quoted(tensor.name)));
    }
    if (verify_ == Verify::crc) record.sha256.reset();
    return {std::move(record.hashed), record.crc32, record.sha256};
  }

  SecretKey key_of(const TensorInfo& tensor, const TensorsRecord& record) {
    return keys_->key(record.derivation, fmt::format("decrypt {}: tensor {}",
                                                     checkpoint_.index().blobs[tensor.blob].name,
                                                     quoted(tensor.name)));
  }

  const Checkpoint checkpoint_;
  const Verify verify_;
  std::optional<KeyRing> keys_;
  std::deque<TensorsFile> files_;                  // of each blob
  std::vector<std::unique_ptr<Records>> records_;  // of each blob
  // The file and the line of each tensor.
  std::unordered_map<std::string, std::pair<uint32_t, size_t>> places_;
};

// Sealed files, none of which was changed, swapped for one of another checkpoint, or left out.
class SealedChecks {
 public:
  SealedChecks(const Checkpoint& checkpoint, const KeyOptions& key) {
    KeyRing keys(key);
    const Index& index = checkpoint.index();
    for (uint32_t i = 0; i < index.blobs.size(); ++i) {
      SealedFile file = read_sealed_file(checkpoint.store(), index.blobs[i]);
      add(index, i, file, keys);
      heads_.push_back(file.head);
    }
    check_set(index);
    if (places_.size() != index.tensors.size()) {
      throw Error(ErrorCode::data,
                  fmt::format("open {}: it changed since it was opened", checkpoint.uri()));
    }
  }

  std::unique_ptr<Decoder> decoder(const TensorInfo& tensor, const std::string& file) const {
    if (tensor.encoding != kSecretbox) return nullptr;
    const Place& place = places_.at(tensor.name);
    return make_secretbox(tensor, file, place.key, place.box);
  }

 private:
  struct Place {
    SecretKey key;
    Secretbox box;
  };

  void add(const Index& index, uint32_t blob, const SealedFile& file, KeyRing& keys) {
    const std::string& name = index.blobs[blob].name;
    const SealedHead& head = file.head;
    std::optional<TensorsKeyDerivation> derivation;
    if (head.derived) derivation = {head.operations, head.memory, head.derivation_salt};
    const SealKeys own = seal_keys(keys.key(derivation, "decrypt " + name), head.salt);
    if (!same_tag(seal_tag(own.header, file.covered), head.tag)) {
      throw Error(ErrorCode::data,
                  fmt::format("decrypt {} [0, +{}): the key is wrong, or the header was changed",
                              name, file.covered.size()));
    }
    for (size_t i = 0; i < file.header.tensors.size(); ++i) {
      const TensorInfo& tensor = file.header.tensors[i];
      const TensorInfo* known = index.find(tensor.name);
      // What was indexed is what the tag is over.
      if (known == nullptr || known->blob != blob || known->offset != tensor.offset ||
          known->size != tensor.size || known->shape != tensor.shape ||
          known->dtype != tensor.dtype) {
        throw Error(ErrorCode::data,
                    fmt::format("decrypt {}: tensor {}: it changed since it was opened", name,
                                quoted(tensor.name)));
      }
      const auto first = file.codes.begin() + static_cast<long>(file.first_chunk[i]);
      const uint64_t chunks = (tensor.size + head.chunk_size - 1) / head.chunk_size;
      places_.emplace(tensor.name, Place{own.data,
                                         {head.chunk_size,
                                          nonce_of({}, file.first_chunk[i]),
                                          {first, first + static_cast<long>(chunks)}}});
    }
  }

  void check_set(const Index& index) const {
    std::vector<bool> seen(heads_.size());
    for (size_t i = 0; i < heads_.size(); ++i) {
      const SealedHead& head = heads_[i];
      if (head.set != heads_.front().set || head.parts != heads_.size() || seen[head.part]) {
        throw Error(ErrorCode::data,
                    fmt::format("decrypt {}: it is part {} of {} of what was sealed at once, and "
                                "not all of that, or more, was opened",
                                index.blobs[i].name, head.part + 1, head.parts));
      }
      seen[head.part] = true;
    }
  }

  std::vector<SealedHead> heads_;
  std::unordered_map<std::string, Place> places_;
};

// Of an archive of torch.save's, where no decoder sees it. Throws Error{data}.
void check_entry(Store& store, const Blob& blob, const TorchEntry& entry,
                 const std::function<bool()>& stopped) {
  const uint32_t found = crc32_of(store, blob, entry.offset, entry.size, stopped);
  if (found == entry.crc32) return;
  throw Error(
      ErrorCode::data,
      fmt::format("verify {} [{}, +{}): entry {} of the zip archive: its CRC-32 is "
                  "{:08x}, but {:08x} is expected",
                  blob.name, entry.offset, entry.size, quoted(entry.name), found, entry.crc32));
}

// The CRC-32s of the zip archives that torch.save writes, one for each storage. What no tensor is
// made of is checked at once. Shared by the decoders.
class TorchChecks {
 public:
  explicit TorchChecks(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
    const Index& index = checkpoint.index();
    for (const Blob& blob : index.blobs) {
      files_.push_back(read_torch_file(checkpoint.store(), blob));
      check_structure(blob, files_.back());
    }
    for (const TensorInfo& tensor : index.tensors) {
      if (tensor.size == 0) continue;
      const TorchEntry& entry = entry_of(tensor);
      if (is_whole(tensor, entry)) continue;
      auto& sum = sums_[{tensor.blob, entry.offset}];
      if (!sum) {
        sum = std::make_shared<StorageSum>(checkpoint.store(), index.blobs[tensor.blob],
                                           "storage " + quoted(entry.name));
        sum->set_expected(entry.offset, entry.size, entry.crc32);
      }
      if (tensor.strides.empty()) sum->add_part(tensor.offset, tensor.size);
    }
  }

  std::unique_ptr<Decoder> decoder(const TensorInfo& seen) const {
    // Strided tensors come with the size that they are delivered with.
    const TensorInfo& tensor = *checkpoint_.index().find(seen.name);
    if (tensor.size == 0) return nullptr;
    const TorchEntry& entry = entry_of(tensor);
    const std::string& file = checkpoint_.index().blobs[tensor.blob].name;
    if (!is_whole(tensor, entry)) {
      return make_storage_check(tensor, file, sums_.at({tensor.blob, entry.offset}));
    }
    return make_crc_check(tensor, file, [crc32 = entry.crc32] {
      return Checksums{{}, crc32, std::nullopt};
    });
  }

 private:
  void check_structure(const Blob& blob, const TorchFile& file) const {
    if (!file.sums) {
      throw Error(ErrorCode::data, fmt::format("verify {} [0, +{}): it was saved without CRC-32s",
                                               blob.name, blob.size));
    }
    for (const TorchEntry& entry : file.entries) {
      if (!entry.storage) check_entry(checkpoint_.store(), blob, entry, {});
    }
  }

  [[nodiscard]] const TorchEntry& entry_of(const TensorInfo& tensor) const {
    const auto& entries = files_[tensor.blob].entries;
    const auto after =
        std::upper_bound(entries.begin(), entries.end(), tensor.offset,
                         [](uint64_t offset, const TorchEntry& e) { return offset < e.offset; });
    if (after != entries.begin()) {
      const TorchEntry& entry = *std::prev(after);
      if (tensor.offset + tensor.size <= entry.offset + entry.size) return entry;
    }
    throw Error(ErrorCode::data,
                fmt::format("verify {} [{}, +{}): tensor {}: it changed since it was opened",
                            checkpoint_.index().blobs[tensor.blob].name, tensor.offset, tensor.size,
                            quoted(tensor.name)));
  }

  static bool is_whole(const TensorInfo& tensor, const TorchEntry& entry) {
    return tensor.strides.empty() && tensor.offset == entry.offset && tensor.size == entry.size;
  }

  const Checkpoint checkpoint_;
  std::vector<TorchFile> files_;  // of each blob
  // Of storages that no single tensor is, by blob and offset.
  std::map<std::pair<uint32_t, uint64_t>, std::shared_ptr<StorageSum>> sums_;
};

DecoderFactory sealed_checks(const Checkpoint& checkpoint, const CheckOptions& options) {
  if (!options.key) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: it is encrypted, and no key was given", checkpoint.uri()));
  }
  auto checks = std::make_shared<const SealedChecks>(checkpoint, *options.key);
  return [checks, checkpoint](const TensorInfo& tensor) {
    return checks->decoder(tensor, checkpoint.index().blobs[tensor.blob].name);
  };
}

}  // namespace

KeyOptions::~KeyOptions() {
  wipe(std::as_writable_bytes(std::span(passphrase)));
  if (key) wipe(*key);
}

bool has_checksums(const Checkpoint& checkpoint) {
  const Index& index = checkpoint.index();
  if (index.format == "tensorizer") return true;
  return index.format == "pytorch" &&
         std::all_of(index.blobs.begin(), index.blobs.end(),
                     [&](const Blob& blob) { return has_torch_sums(checkpoint.store(), blob); });
}

DecoderFactory checks_of(const Checkpoint& checkpoint, const CheckOptions& options) {
  const Index& index = checkpoint.index();
  const bool sealed = std::any_of(index.tensors.begin(), index.tensors.end(),
                                  [](const auto& t) { return t.encoding == kSecretbox; });
  if (options.verify == Verify::none && !options.key && !sealed && index.format != "sealed")
    return {};
  if (index.format == "sealed") return sealed_checks(checkpoint, options);
  if (index.format != "tensorizer" && options.key) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: a key was given, but it is not encrypted", checkpoint.uri()));
  }
  if (index.format == "pytorch") {
    auto checks = std::make_shared<const TorchChecks>(checkpoint);
    return [checks](const TensorInfo& tensor) { return checks->decoder(tensor); };
  }
  if (index.format != "tensorizer") {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: {} has no checksums of its own; a manifest verifies it",
                            checkpoint.uri(), index.format));
  }
  auto checks = std::make_shared<TensorsChecks>(checkpoint, options);
  return [checks](const TensorInfo& tensor) { return checks->decoder(tensor); };
}

void check_unused(const Checkpoint& checkpoint, const std::function<bool()>& stopped) {
  const Index& index = checkpoint.index();
  if (index.format != "pytorch") return;
  std::vector<std::vector<uint64_t>> used(index.blobs.size());  // where the tensors begin
  for (const TensorInfo& tensor : index.tensors) {
    if (tensor.size > 0) used[tensor.blob].push_back(tensor.offset);
  }
  for (size_t i = 0; i < index.blobs.size(); ++i) {
    std::sort(used[i].begin(), used[i].end());
    const Blob& blob = index.blobs[i];
    for (const TorchEntry& entry : read_torch_file(checkpoint.store(), blob).entries) {
      const auto first = std::lower_bound(used[i].begin(), used[i].end(), entry.offset);
      const bool unused = first == used[i].end() || *first >= entry.offset + entry.size;
      if (entry.storage && unused) check_entry(checkpoint.store(), blob, entry, stopped);
    }
  }
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
