// The entries of the archive that matter; PREFIX is the name that the file had when it was saved:
//
//   PREFIX/data.pkl     the structure: see pickle.h
//   PREFIX/data/KEY     the bytes of one storage, which several tensors may share
//   PREFIX/byteorder    "little", or absent
//
// They are stored, not compressed, and torch pads them so that their bytes begin at multiples
// of 64.
#include "inrush/formats/pytorch.h"
#include "inrush/base/text.h"
#include "inrush/formats/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include "inrush/base/parallel.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/pickle.h"
#include "inrush/formats/zip.h"

namespace inrush {
namespace {

using namespace std::string_view_literals;

constexpr uint64_t kLargestPickle = 100'000'000;  // bytes
constexpr std::string_view kPickle = "data.pkl";
constexpr size_t kMostReaders = 8;  // headers on a far store come one round trip after the other

constexpr std::array kSuffixes{".bin"sv, ".pt"sv, ".pth"sv, ".ckpt"sv};
// What trainers leave beside the weights.
constexpr std::array kNoWeights{"training_args"sv, "optimizer"sv, "scheduler"sv, "rng_state"sv,
                                "scaler"sv};

struct Archive {
  const Blob& blob;
  std::string prefix;  // with its slash, or ""
  std::unordered_map<std::string_view, const ZipEntry*> entries;

  [[nodiscard]] const ZipEntry* find(const std::string& name) const {
    const auto at = entries.find(prefix + name);
    return at == entries.end() ? nullptr : at->second;
  }
};

void check_stored(const Blob& blob, const ZipEntry& entry) {
  if (entry.stored) return;
  throw_at(blob.name, entry.header, entry.size,
           fmt::format("entry {} of the zip archive is compressed or encrypted, which torch.save "
                       "does not do",
                       quoted(entry.name)));
}

Archive open_archive(const Blob& blob, const std::vector<ZipEntry>& entries) {
  Archive archive{blob, {}, {}};
  const ZipEntry* pickle = nullptr;
  for (const auto& entry : entries) {
    if (!archive.entries.emplace(entry.name, &entry).second) {
      throw_at(blob.name, entry.header, entry.size,
               fmt::format("entry {} stands in the zip archive twice", quoted(entry.name)));
    }
    const std::string_view name = entry.name;
    const bool at_top = name.substr(name.find('/') + 1) == kPickle || name == kPickle;
    if (at_top && pickle == nullptr) pickle = &entry;
  }
  if (pickle == nullptr) {
    throw_at(blob.name, 0, blob.size,
             "no checkpoint of torch.save: there is no data.pkl in this zip archive");
  }
  archive.prefix = pickle->name.substr(0, pickle->name.size() - kPickle.size());
  return archive;
}

std::vector<std::byte> read_whole(Store& store, const Blob& blob, const ZipEntry& entry,
                                  uint64_t& offset) {
  check_stored(blob, entry);
  if (entry.size > kLargestPickle) {
    throw_at(
        blob.name, entry.header, entry.size,
        fmt::format("entry {} is over the limit of {} bytes", quoted(entry.name), kLargestPickle));
  }
  offset = offset_of(store, blob, entry);
  std::vector<std::byte> bytes(entry.size);
  store.read(blob, offset, bytes);
  return bytes;
}

void check_byte_order(Store& store, const Archive& archive) {
  const ZipEntry* entry = archive.find("byteorder");
  if (entry == nullptr) return;
  uint64_t offset = 0;
  const auto bytes = read_whole(store, archive.blob, *entry, offset);
  const std::string_view order(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (order == "little") return;
  throw_at(archive.blob.name, offset, bytes.size(),
           fmt::format("its byte order is {}, and only little is read", quoted(order)));
}

std::vector<PickledTensor> read_structure(Store& store, const Archive& archive) {
  uint64_t offset = 0;
  const ZipEntry& entry = *archive.find(std::string(kPickle));
  const auto bytes = read_whole(store, archive.blob, entry, offset);
  try {
    return read_pickle(bytes);
  } catch (const BytesFault& fault) {
    throw_at(archive.blob.name, offset, bytes.size(),
             fmt::format("bad pickle at byte {}: {}", offset + fault.offset, fault.reason));
  }
}

// Where the storages lie that tensors with bytes need, by key.
class Storages {
 public:
  Storages(Store& store, const Archive& archive, const std::vector<PickledTensor>& tensors) {
    std::vector<std::pair<const ZipEntry*, uint64_t*>> wanted;
    for (const auto& tensor : tensors) {
      const std::string& key = tensor.storage.key;
      const auto [at, added] = places_.try_emplace(key);
      if (!added) continue;
      const ZipEntry* entry = archive.find("data/" + key);
      if (entry == nullptr) {
        throw_at(archive.blob.name, 0, archive.blob.size,
                 fmt::format("tensor {}: its storage {} is not in the zip archive",
                             quoted(tensor.name), quoted(key)));
      }
      check_stored(archive.blob, *entry);
      at->second.size = entry->size;
      wanted.emplace_back(entry, &at->second.offset);
    }
    parallel_for(wanted.size(), kMostReaders, [&](size_t i) {
      *wanted[i].second = offset_of(store, archive.blob, *wanted[i].first);
    });
  }

  // The tensor where it lies in the file.
  TensorInfo place(const Blob& blob, PickledTensor& from) const {
    TensorInfo tensor;
    tensor.name = std::move(from.name);
    tensor.shape = std::move(from.shape);
    tensor.strides = std::move(from.strides);
    const Place& place = places_.at(from.storage.key);
    const auto fail = [&](const std::string& reason) {
      throw_at(blob.name, place.offset, place.size,
               fmt::format("tensor {}: {}", quoted(tensor.name), reason));
    };
    uint64_t begin = 0;
    if (!set_torch_type(*from.type, tensor) ||
        __builtin_mul_overflow(from.offset, uint64_t{from.type->size}, &begin)) {
      fail("its size overflows 64 bits");
    }
    if (tensor.size == 0) begin = 0;
    if (tensor.size > place.size || begin > place.size - tensor.size) {
      fail(fmt::format("its bytes [{}, +{}) reach past the end of its storage, which has {}", begin,
                       tensor.size, place.size));
    }
    if (repeats_too_much(tensor, blob.size)) {
      fail(fmt::format("its strides repeat {} bytes until they are {}", tensor.size,
                       delivered_size(tensor)));
    }
    tensor.offset = place.offset + begin;
    return tensor;
  }

 private:
  struct Place {
    uint64_t offset = 0;
    uint64_t size = 0;
  };
  std::unordered_map<std::string, Place> places_;
};

void add_file(Store& store, const std::string& entry, Index& out) {
  Blob blob = store.open(entry);
  const auto entries = read_zip(store, blob);
  const Archive archive = open_archive(blob, entries);
  check_byte_order(store, archive);
  auto tensors = read_structure(store, archive);
  const Storages storages(store, archive, tensors);
  for (auto& tensor : tensors) {
    out.tensors.push_back(storages.place(blob, tensor));
    out.tensors.back().blob = static_cast<uint32_t>(out.blobs.size());
  }
  out.blobs.push_back(std::move(blob));
}

// Of what is read at all.
bool has_sums(const std::vector<const ZipEntry*>& read) {
  return std::any_of(read.begin(), read.end(), [](const auto* e) { return e->crc32 != 0; });
}

bool is_storage(const ZipEntry& entry, const Archive& archive) {
  return entry.name.starts_with(archive.prefix + "data/");
}

std::vector<const ZipEntry*> entries_read(const std::vector<ZipEntry>& zip,
                                          const Archive& archive) {
  std::vector<const ZipEntry*> read;
  for (const ZipEntry& entry : zip) {
    if (!entry.stored || entry.size == 0) continue;
    if (is_storage(entry, archive) || entry.size <= kLargestPickle) read.push_back(&entry);
  }
  return read;
}

}  // namespace

bool has_torch_sums(Store& store, const Blob& blob) {
  const auto zip = read_zip(store, blob);
  return has_sums(entries_read(zip, open_archive(blob, zip)));
}

TorchFile read_torch_file(Store& store, const Blob& blob) {
  const auto zip = read_zip(store, blob);
  const Archive archive = open_archive(blob, zip);
  const auto read = entries_read(zip, archive);
  TorchFile file;
  for (const ZipEntry* entry : read) {
    file.entries.push_back(
        {entry->name, 0, entry->size, entry->crc32, is_storage(*entry, archive)});
  }
  file.sums = has_sums(read);
  parallel_for(read.size(), kMostReaders,
               [&](size_t i) { file.entries[i].offset = offset_of(store, blob, *read[i]); });
  std::sort(file.entries.begin(), file.entries.end(),
            [](const auto& a, const auto& b) { return a.offset < b.offset; });
  return file;
}

bool named_pytorch(std::string_view entry) {
  const std::string_view name = file_name(entry);
  const auto begins = [&](std::string_view part) { return name.starts_with(part); };
  const auto ends = [&](std::string_view part) { return name.ends_with(part); };
  return std::any_of(kSuffixes.begin(), kSuffixes.end(), ends) &&
         std::none_of(kNoWeights.begin(), kNoWeights.end(), begins);
}

bool begins_pytorch(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  return text.starts_with("PK\x03\x04"sv);
}

Index index_pytorch(Store& store, const std::vector<std::string>& entries) {
  Index index;
  index.format = "pytorch";
  for (const auto& entry : entries) add_file(store, entry, index);
  index.finish();
  return index;
}

}  // namespace inrush
