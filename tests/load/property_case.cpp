#include "tests/load/property_case.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace inrush::test {
namespace {

uint64_t below(Random& random, uint64_t limit) { return random() % limit; }

// One file: length, header, data.
FileBytes random_file(Random& random, uint64_t shard, uint64_t size) {
  constexpr Dtype kDtypes[] = {Dtype::u8, Dtype::bf16, Dtype::f32, Dtype::i64};
  std::string header = "{";
  uint64_t offset = 0;
  for (uint64_t i = 0; offset < size; ++i) {
    const Dtype dtype = kDtypes[below(random, std::size(kDtypes))];
    std::vector<uint64_t> shape;
    uint64_t bytes = bits_of(dtype) / 8;
    for (uint64_t d = below(random, 4); d > 0; --d) {
      const uint64_t room = std::max<uint64_t>(size / 3 / bytes, 1);
      shape.push_back(below(random, 20) == 0 ? 0
                                             : 1 + below(random, std::min<uint64_t>(room, 300)));
      bytes = std::max<uint64_t>(bytes * shape.back(), 1);
    }
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) bytes = 0;
    header += fmt::format(R"({}"{}.{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          i == 0 ? "" : ",", shard, i, name_of(dtype), fmt::join(shape, ","),
                          offset, offset + bytes);
    offset += bytes;
  }
  header += "}" + std::string(below(random, 9), ' ');  // any alignment of what follows
  FileBytes file(8 + header.size() + offset);
  for (std::byte& byte : file) byte = static_cast<std::byte>(random());
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<std::byte>(header.size() >> (8 * i));
  std::transform(header.begin(), header.end(), file.begin() + 8,
                 [](char c) { return static_cast<std::byte>(c); });
  return file;
}

std::vector<SliceDim> any_slice(Random& random, const std::vector<uint64_t>& shape) {
  std::vector<SliceDim> slice;
  for (uint64_t d = 0; d < shape.size() && below(random, 4) > 0; ++d) {
    const uint64_t start = below(random, shape[d] + 1);
    const uint64_t stop = start + below(random, shape[d] - start + 1);
    slice.push_back({start, stop, below(random, 3) == 0 ? 1 + below(random, 5) : 1});
  }
  return slice;
}

}  // namespace

std::map<std::string, FileBytes> random_files(Random& random, uint64_t size) {
  std::map<std::string, FileBytes> files;
  const uint64_t shards = 1 + below(random, 3);
  for (uint64_t i = 0; i < shards; ++i) {
    files[fmt::format("model-{}.safetensors", i)] = random_file(random, i, size / shards);
  }
  return files;
}

std::vector<Selection> random_wants(Random& random, const Index& index, uint32_t consumers,
                                    bool file_order) {
  enum { kSame, kRows, kColumns, kAny };
  const uint64_t way = below(random, 4);
  std::vector<Selection> selections(consumers);
  for (uint32_t consumer = 0; consumer < consumers; ++consumer) {
    Selection& selection = selections[consumer];
    for (uint32_t i = 0; i < index.tensors.size(); ++i) {
      const std::vector<uint64_t>& shape = index.tensors[i].shape;
      Want want{i};
      const size_t split = way == kColumns ? 1 : 0;
      if ((way == kRows || way == kColumns) && shape.size() > split) {
        if (split == 1) want.slice.push_back({0, shape[0], 1});
        want.slice.push_back(
            {shape[split] * consumer / consumers, shape[split] * (consumer + 1) / consumers, 1});
      } else if (way == kAny) {
        if (below(random, 4) == 0) continue;
        want.slice = any_slice(random, shape);
      }
      selection.wants.push_back(want);
    }
    if (!file_order) std::shuffle(selection.wants.begin(), selection.wants.end(), random);
  }
  return selections;
}

FileBytes wanted_bytes(const FileBytes& file, const TensorInfo& tensor, const Want& want) {
  const auto data = file.begin() + static_cast<ptrdiff_t>(tensor.offset);
  if (want.slice.empty()) return {data, data + static_cast<ptrdiff_t>(tensor.size)};
  std::vector<SliceDim> dims = want.slice;
  for (size_t d = dims.size(); d < tensor.shape.size(); ++d)
    dims.push_back({0, tensor.shape[d], 1});
  const uint64_t width = bits_of(tensor.dtype) / 8;
  FileBytes bytes;
  std::vector<uint64_t> at;
  for (const SliceDim& dim : dims) {
    if (dim.start == dim.stop) return bytes;
    at.push_back(dim.start);
  }
  while (true) {
    uint64_t element = 0;
    for (size_t d = 0; d < dims.size(); ++d) element = element * tensor.shape[d] + at[d];
    const auto from = data + static_cast<ptrdiff_t>(element * width);
    bytes.insert(bytes.end(), from, from + static_cast<ptrdiff_t>(width));
    size_t d = dims.size();
    while (d > 0 && (at[d - 1] += dims[d - 1].step) >= dims[d - 1].stop) {
      at[d - 1] = dims[d - 1].start;
      --d;
    }
    if (d == 0) return bytes;
  }
}

Preparation prepare(const Checkpoint& checkpoint, const LoadOptions& options) {
  Preparation preparation{checkpoint, options, {}, {}, {}, options.budget, nullptr};
  preparation.plan = make_plan(checkpoint.index(), options.selections, options.limits);
  preparation.facts.machine.cpus = 2;
  preparation.facts.machine.memory_available = 1ULL << 40;
  return preparation;
}

}  // namespace inrush::test
