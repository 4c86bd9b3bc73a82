// tensor_index.json is one object, from a tensor's name to an array:
//
//   [offset, size, [shape], [stride], "torch.float16"]      ServerlessLLM: five
//   [offset, size, [shape], [stride], "f16", partition]     Tensora: six
//
// size is in bytes, of the tensor's storage; strides count elements. The offset counts from the
// first byte of the partition with six, and with five from the first byte of tensor.data_0, as if
// the files were one. A tensor lies in one file. Two that share a storage have one offset.
#include "inrush/formats/serverlessllm.h"
#include "inrush/formats/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <iterator>
#include <optional>
#include <utility>

#include "inrush/base/parallel.h"
#include "inrush/base/text.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/torch_types.h"

namespace inrush {
namespace {

constexpr uint64_t kLargestIndex = 100'000'000;  // bytes of an index
constexpr size_t kMostPartitions = 1 << 16;      // files of one index
constexpr size_t kMostRanks = 1 << 12;
constexpr size_t kRanksAtOnce = 32;  // asked for together: so many behind a gap are noticed
constexpr size_t kRankThreads = 8;
constexpr size_t kNamed = 5;         // in one error
constexpr size_t kMostExtents = 64;  // dimensions, as torch has it

struct Alias {
  std::string_view name;
  std::string_view torch;
};

// How the dialects and their forerunners spell what torch calls otherwise.
constexpr Alias kAliases[] = {
    {"b", "bool"},
    {"u8", "uint8"},
    {"i8", "int8"},
    {"u16", "uint16"},
    {"i16", "int16"},
    {"u32", "uint32"},
    {"i32", "int32"},
    {"u64", "uint64"},
    {"i64", "int64"},
    {"f16", "float16"},
    {"bf16", "bfloat16"},
    {"f32", "float32"},
    {"f", "float32"},
    {"f64", "float64"},
    {"d", "float64"},
    {"c64", "complex64"},
    {"f8_e4m3", "float8_e4m3fn"},
    {"f8_e5m2", "float8_e5m2"},
};

const TorchType* type_named(std::string_view text) {
  constexpr std::string_view kPrefix = "torch.";
  if (text.starts_with(kPrefix)) return torch_type(text.substr(kPrefix.size()));
  const std::string name = lower(text);
  for (const auto& [alias, torch] : kAliases) {
    if (alias == name) return torch_type(torch);
  }
  return torch_type(name);
}

class IndexParser {
 public:
  IndexParser(const JsonText& json, std::span<const uint64_t> partitions)
      : reader_(json), partitions_(partitions) {
    uint64_t total = 0;
    for (const uint64_t size : partitions) {
      begins_.push_back(total);
      if (__builtin_add_overflow(total, size, &total)) total = ~0ULL;
    }
    begins_.push_back(total);
  }

  std::vector<TensorInfo> run() {
    std::string_view key;
    reader_.enter_object();
    while (reader_.next_field(key)) {
      TensorInfo& tensor = tensors_.emplace_back();
      tensor.name = key;
      read_tensor(tensor);
    }
    reader_.finish();
    if (tensors_.empty()) reader_.fail("it names no tensor");
    check_names();
    check_overlap();
    return std::move(tensors_);
  }

 private:
  void check_names() {
    std::vector<std::string_view> names;
    names.reserve(tensors_.size());
    for (const auto& tensor : tensors_) names.push_back(tensor.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice == names.end()) return;
    reader_.fail(fmt::format("tensor {} stands in it twice", quoted(*twice)));
  }

  // Neither writer makes storages that share some bytes and not where they begin.
  void check_overlap() {
    std::vector<Storage> storages = std::move(storages_);
    std::sort(storages.begin(), storages.end(), [](const Storage& a, const Storage& b) {
      return std::pair(a.begin, a.tensor) < std::pair(b.begin, b.tensor);
    });
    const Storage* last = nullptr;  // that which reaches farthest of those that begin before
    for (size_t i = 0, first = 0; i < storages.size(); ++i) {
      const Storage& one = storages[i];
      for (; first < i && storages[first].begin < one.begin; ++first) {
        if (last == nullptr || storages[first].end > last->end) last = &storages[first];
      }
      if (last == nullptr || last->end <= one.begin) continue;
      fail(tensors_[one.tensor],
           fmt::format("its bytes overlap those of {}", quoted(tensors_[last->tensor].name)));
    }
  }

  void read_tensor(TensorInfo& tensor) {
    size_t count = 0;
    std::optional<uint64_t> partition;
    const TorchType* type = nullptr;
    uint64_t storage = 0;
    reader_.enter_array();
    while (reader_.next_element()) {
      switch (count++) {
        case 0:
          tensor.offset = reader_.unsigned_integer();
          break;
        case 1:
          storage = reader_.unsigned_integer();
          break;
        case 2:
          read_extents(tensor, tensor.shape);
          break;
        case 3:
          read_extents(tensor, tensor.strides);
          break;
        case 4:
          type = read_type(tensor);
          break;
        case 5:
          partition = reader_.unsigned_integer();
          break;
        default:
          fail(tensor, "more than 6 elements");
      }
    }
    if (type == nullptr) fail(tensor, fmt::format("{} elements, not 5 or 6", count));
    check_dialect(tensor, count);
    settle(tensor, *type, storage);
    place(tensor, storage, partition);
  }

  void read_extents(const TensorInfo& tensor, std::vector<uint64_t>& extents) {
    reader_.enter_array();
    while (reader_.next_element()) {
      if (extents.size() == kMostExtents) fail(tensor, "more than 64 dimensions");
      extents.push_back(reader_.unsigned_integer());
    }
  }

  const TorchType* read_type(const TensorInfo& tensor) {
    const std::string_view text = reader_.string();
    const TorchType* type = type_named(text);
    if (type == nullptr) fail(tensor, fmt::format("dtype {} is not known", quoted(text)));
    return type;
  }

  void check_dialect(const TensorInfo& tensor, size_t count) {
    if (arity_ == 0) arity_ = count;
    if (arity_ != count) {
      fail(tensor, fmt::format("{} elements, while the tensors before it have {}", count, arity_));
    }
  }

  void settle(TensorInfo& tensor, const TorchType& type, uint64_t storage) {
    if (tensor.strides.size() != tensor.shape.size()) {
      fail(tensor,
           fmt::format("{} strides for {} dimensions", tensor.strides.size(), tensor.shape.size()));
    }
    const std::string shape =
        fmt::format("torch.{}[{}] with strides [{}]", type.name, fmt::join(tensor.shape, ", "),
                    fmt::join(tensor.strides, ", "));
    if (!set_torch_type(type, tensor)) fail(tensor, "the size of " + shape + " overflows 64 bits");
    if (tensor.size > storage) {
      fail(tensor,
           fmt::format("{} takes {} bytes, but its size is {}", shape, tensor.size, storage));
    }
    if (repeats_too_much(tensor, begins_.back())) {
      fail(tensor, fmt::format("its strides repeat {} bytes until they are {}", tensor.size,
                               delivered_size(tensor)));
    }
  }

  void place(TensorInfo& tensor, uint64_t storage, std::optional<uint64_t> partition) {
    if (partition && *partition >= partitions_.size()) {
      fail(tensor, fmt::format("it is in partition {}, but the files end with tensor.data_{}",
                               *partition, partitions_.size() - 1));
    }
    const uint64_t base = partition ? begins_[*partition] : 0;
    const uint64_t end = partition ? begins_[*partition + 1] : begins_.back();
    if (storage > end - base || tensor.offset > end - base - storage) {
      fail(tensor, fmt::format("its bytes [{}, +{}) reach past the end of {}, which {} {} bytes: "
                               "truncated, or not the files of this index",
                               tensor.offset, storage,
                               partition ? fmt::format("tensor.data_{}", *partition)
                                         : fmt::format("the {} data files", partitions_.size()),
                               partition ? "has" : "have", end - base));
    }
    const uint64_t begin = base + tensor.offset;
    if (storage > 0) storages_.push_back({begin, begin + storage, tensors_.size() - 1});
    if (partition) {
      tensor.blob = static_cast<uint32_t>(*partition);
      return;
    }
    // The last file that begins at or before it; of empty files, and for an empty tensor at the
    // very end, the last.
    const auto next = std::upper_bound(begins_.begin(), begins_.end() - 1, tensor.offset);
    tensor.blob = static_cast<uint32_t>(next - begins_.begin() - 1);
    tensor.offset -= begins_[tensor.blob];
    if (tensor.size > partitions_[tensor.blob] - tensor.offset) {
      fail(tensor,
           fmt::format("its bytes begin in tensor.data_{} and end in a later file", tensor.blob));
    }
  }

  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& reason) {
    reader_.fail(fmt::format("tensor {}: {}", quoted(tensor.name), reason));
  }

  struct Storage {
    uint64_t begin;  // as if the files were one
    uint64_t end;
    size_t tensor;
  };

  JsonReader reader_;
  std::span<const uint64_t> partitions_;
  std::vector<uint64_t> begins_;  // of each partition, as if the files were one; then their end
  std::vector<TensorInfo> tensors_;
  std::vector<Storage> storages_;
  size_t arity_ = 0;
};

// "rank_3/" of "models/rank_3/tensor_index.json"; "" where it lies in no such folder.
std::string rank_of(std::string_view entry) {
  const std::string_view folder = entry.substr(0, entry.rfind('/') + 1);
  if (folder.empty()) return {};
  const size_t before = folder.substr(0, folder.size() - 1).rfind('/');
  const std::string_view last = folder.substr(before + 1);
  return last.starts_with("rank_") ? std::string(last) : std::string();
}

// Whether the store has the entry. Only folders that a store cannot list are asked so.
bool is_there(Store& store, const std::string& entry) {
  try {
    store.open(entry);
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::source) throw;
    return false;
  }
}

std::string rank_entry(size_t rank) { return fmt::format("rank_{}/{}", rank, kServerlessIndex); }

std::vector<Blob> open_partitions(Store& store, const std::string& folder,
                                  const std::string& index) {
  const std::vector<std::string> listing =
      folder.empty() ? store.list() : std::vector<std::string>();
  std::vector<Blob> blobs;
  while (blobs.size() < kMostPartitions) {
    const std::string name = fmt::format("{}tensor.data_{}", folder, blobs.size());
    const bool there = folder.empty() ? std::binary_search(listing.begin(), listing.end(), name)
                                      : is_there(store, name);
    if (!there) break;
    blobs.push_back(store.open(name));
  }
  if (blobs.empty()) {
    throw Error(ErrorCode::data,
                fmt::format("index {}: there is no tensor.data_0 beside it", index));
  }
  return blobs;
}

void add_index(Store& store, const std::string& entry, Index& out) {
  const Blob blob = store.open(entry);
  if (blob.size > kLargestIndex) {
    throw_at(blob.name, 0, blob.size, fmt::format("over the limit of {} bytes", kLargestIndex));
  }
  JsonText json(blob.size);
  store.read(blob, 0, std::as_writable_bytes(std::span(json.data(), json.size())));
  const std::string folder = entry.substr(0, entry.rfind('/') + 1);
  std::vector<Blob> blobs = open_partitions(store, folder, blob.name);
  std::vector<uint64_t> sizes;
  for (const auto& partition : blobs) sizes.push_back(partition.size);
  const auto first = static_cast<uint32_t>(out.blobs.size());
  const std::string rank = rank_of(entry);
  for (auto& tensor : parse_serverless_index(json, blob.name, sizes)) {
    tensor.blob += first;
    tensor.name.insert(0, rank);
    out.tensors.push_back(std::move(tensor));
  }
  std::move(blobs.begin(), blobs.end(), std::back_inserter(out.blobs));
}

}  // namespace

std::vector<TensorInfo> parse_serverless_index(const JsonText& json, const std::string& name,
                                               std::span<const uint64_t> partitions) {
  try {
    return IndexParser(json, partitions).run();
  } catch (const JsonFault& fault) {
    throw_at(name, 0, json.size(),
             fmt::format("bad index at byte {}: {}", fault.offset, fault.reason));
  }
}

std::vector<std::string> serverless_ranks(Store& store) {
  std::vector<std::string> found;
  std::vector<std::string> missing;  // of those before the last that was found
  std::vector<std::string> absent;
  for (size_t first = 0; first < kMostRanks; first += kRanksAtOnce) {
    std::array<std::string, kRanksAtOnce> entries;
    std::array<char, kRanksAtOnce> there{};  // vector<bool>'s are not each thread's own
    for (size_t i = 0; i < kRanksAtOnce; ++i) entries[i] = rank_entry(first + i);
    parallel_for(kRanksAtOnce, kRankThreads,
                 [&](size_t i) { there[i] = is_there(store, entries[i]) ? 1 : 0; });
    const size_t before = found.size();
    for (size_t i = 0; i < kRanksAtOnce; ++i) {
      if (there[i] == 0) {
        absent.push_back(std::move(entries[i]));
        continue;
      }
      std::move(absent.begin(), absent.end(), std::back_inserter(missing));
      absent.clear();
      found.push_back(std::move(entries[i]));
    }
    if (found.size() == before) break;
  }
  if (missing.empty()) return found;
  throw Error(
      ErrorCode::data,
      fmt::format("open {}: ranks up to {} are there, but {} of them {} not: {}{}", store.uri(),
                  found.back(), missing.size(), missing.size() == 1 ? "is" : "are",
                  fmt::join(std::span(missing).first(std::min(missing.size(), kNamed)), ", "),
                  missing.size() > kNamed ? ", ..." : ""));
}

bool named_serverless(std::string_view entry) { return file_name(entry) == kServerlessIndex; }

// JSON looks like any other JSON.
bool begins_serverless(std::span<const std::byte>) { return false; }

Index index_serverless(Store& store, const std::vector<std::string>& entries) {
  Index index;
  index.format = "serverlessllm";
  for (const auto& entry : entries) add_index(store, entry, index);
  index.finish();
  return index;
}

}  // namespace inrush
