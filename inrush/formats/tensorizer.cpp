// Byte layout of a .tensors file, little-endian, nothing aligned:
//
//   0x00  "|TZR|"
//   0x05  u32 version
//   0x09  32 bytes of flags: 1 encrypted, 2 lines of the index have a tag; heeded from version 4 on
//   0x29  u64 sum of the tensors' bytes
//   0x31  8 bytes unused
//   0x39  u64 count of tensors
//   0x41  u64 size of the index
//   0x49  the index, zeros behind it; then the records, one behind the other; then a u64 0
//
// A line of the index, in file order:
//
//   [u32 tag: 1, or 5 for lengths of 64 bits]  u16 size, path  u8 kind  u8 size, dtype
//   u8 dimensions, u32 or u64 lengths  u64 begin of the record  u64 begin of the bytes  u64 size
//
// A tensor with elements and without bytes was one of torch's meta tensors: it is read as zeros.
#include "inrush/formats/tensorizer.h"
#include "inrush/formats/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/bytes.h"
#include "inrush/formats/rivals.h"
#include "inrush/formats/torch_types.h"

namespace inrush {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kTensorizerMagic = "|TZR|";
constexpr uint64_t kTensorizerHeadSize = 0x49;
constexpr uint32_t kStrictestAlignment = 16;    // of complex128
constexpr uint64_t kLargestLines = 1ULL << 30;  // bytes
constexpr size_t kUsualLine = 64;               // bytes
constexpr uint64_t kEndSize = 8;
constexpr uint32_t kEncryptedVersion = 3;
constexpr uint32_t kFlagsVersion = 4;
constexpr uint32_t kTagsVersion = 5;
constexpr uint8_t kStateDict = 2;
constexpr char kStructured = '\x1e';

// "<f4", "|b1": what numpy calls the types that it has.
const TorchType* plain_type(std::string_view code) {
  struct Row {
    std::string_view code;
    std::string_view name;
  };
  constexpr std::array kRows{
      Row{"|b1", "bool"},      Row{"|u1", "uint8"},       Row{"|i1", "int8"},
      Row{"<u2", "uint16"},    Row{"<i2", "int16"},       Row{"<u4", "uint32"},
      Row{"<i4", "int32"},     Row{"<u8", "uint64"},      Row{"<i8", "int64"},
      Row{"<f2", "float16"},   Row{"<f4", "float32"},     Row{"<f8", "float64"},
      Row{"<c8", "complex64"}, Row{"<c16", "complex128"},
  };
  for (const auto& row : kRows) {
    if (row.code == code) return torch_type(row.name);
  }
  return nullptr;
}

// A width, NUL, and the name that torch has: "<V2", NUL, "torch.bfloat16".
const TorchType* type_of(std::string_view dtype) {
  const size_t nul = dtype.find('\0');
  if (nul == std::string_view::npos) return plain_type(dtype);
  constexpr std::string_view kPrefix = "torch.";
  const std::string_view width = dtype.substr(0, nul);
  const std::string_view name = dtype.substr(nul + 1);
  const TorchType* type =
      name.starts_with(kPrefix) ? torch_type(name.substr(kPrefix.size())) : nullptr;
  const bool fits = type != nullptr && (width.starts_with("<V") || width.starts_with("|V")) &&
                    width.substr(2) == std::to_string(type->size);
  return fits ? type : nullptr;
}

// The path with dots between its parts. Throws JsonFault.
std::string name_of_path(const std::string& path) {
  if (path.front() != kStructured) return path;
  const JsonText json(std::string_view(path).substr(1));
  JsonReader reader(json);
  std::string name;
  bool first = true;
  reader.enter_array();
  while (reader.next_element()) {
    if (!std::exchange(first, false)) name += '.';
    name += reader.text_or_integer();
  }
  if (first) reader.fail("a path without parts");
  reader.finish();
  return name;
}

struct TensorizerHead {
  uint32_t version = 0;
  bool encrypted = false;
  bool tagged = false;
  uint64_t count = 0;
  uint64_t index_size = 0;
};

TensorizerHead read_tensorizer_head(Store& store, const Blob& blob) {
  std::array<std::byte, kTensorizerHeadSize> raw;
  const auto bytes = std::span(raw).first(std::min<uint64_t>(blob.size, kTensorizerHeadSize));
  store.read(blob, 0, bytes);
  if (!begins_tensorizer(bytes))
    throw_at(blob.name, 0, kTensorizerMagic.size(), "no tensorizer file");
  if (bytes.size() < kTensorizerHeadSize) {
    throw_at(blob.name, 0, kTensorizerHeadSize,
             fmt::format("it has {} bytes: it is truncated", blob.size));
  }
  Bytes head{std::span<const std::byte>(bytes)};
  head.take(kTensorizerMagic.size());
  TensorizerHead out;
  out.version = head.number<uint32_t>();
  if (out.version < 1 || out.version > kTagsVersion) {
    throw_at(blob.name, 5, 4, fmt::format("version {} is not known: 1 to 5 are", out.version));
  }
  const auto flags = head.number<uint64_t>();
  const auto rest = head.take(24);
  const bool far =
      std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{}; });
  if (far || flags > 3 || ((flags & 2) != 0 && out.version < kTagsVersion)) {
    throw_at(blob.name, 9, 32, fmt::format("flags that version {} does not have", out.version));
  }
  out.encrypted =
      out.version == kEncryptedVersion || (out.version >= kFlagsVersion && (flags & 1) != 0);
  out.tagged = (flags & 2) != 0;
  head.take(16);
  out.count = head.number<uint64_t>();
  out.index_size = head.number<uint64_t>();
  return out;
}

// The fields of a line, as they stand there.
struct RawLine {
  bool wide = false;
  std::string_view path;
  uint8_t kind = 0;
  std::string_view dtype;
  uint8_t dimensions = 0;
  std::span<const std::byte> lengths;
  uint64_t header = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};

RawLine take_line(Bytes& bytes, bool tagged) {
  RawLine line;
  if (tagged) {
    const auto tag = bytes.number<uint32_t>();
    if (tag != 1 && tag != kTagsVersion) bytes.fail(fmt::format("a line with tag {}", tag));
    line.wide = tag == kTagsVersion;
  }
  line.path = bytes.text(bytes.number<uint16_t>());
  line.kind = bytes.number<uint8_t>();
  line.dtype = bytes.text(bytes.number<uint8_t>());
  line.dimensions = bytes.number<uint8_t>();
  line.lengths = bytes.take(line.dimensions * (line.wide ? sizeof(uint64_t) : sizeof(uint32_t)));
  line.header = bytes.number<uint64_t>();
  line.offset = bytes.number<uint64_t>();
  line.size = bytes.number<uint64_t>();
  return line;
}

class LinesParser {
 public:
  LinesParser(std::span<const std::byte> bytes, const Blob& blob, const TensorizerHead& head)
      : bytes_(bytes), blob_(blob), head_(head), end_(kTensorizerHeadSize + head.index_size) {
    // Before it was released, version 5 had tags without a flag.
    if (head_.version == kTagsVersion && !head_.tagged && bytes.size() >= 4) {
      const auto first = Bytes(bytes).number<uint32_t>();
      head_.tagged = first == 1 || first == kTagsVersion;
    }
  }

  std::vector<TensorsEntry> run() {
    entries_.reserve(std::min<uint64_t>(head_.count, head_.index_size / kUsualLine));
    for (uint64_t i = 0; i < head_.count; ++i) {
      read_line(entries_.emplace_back());
    }
    check_end();
    settle_names();
    return std::move(entries_);
  }

 private:
  void read_line(TensorsEntry& entry) {
    const RawLine line = take_line(bytes_, head_.tagged);
    entry.wide = line.wide;
    entry.path = line.path;
    entry.kind = line.kind;
    entry.dtype = line.dtype;
    Bytes lengths(line.lengths);
    for (int i = 0; i < line.dimensions; ++i) {
      entry.shape.push_back(line.wide ? lengths.number<uint64_t>() : lengths.number<uint32_t>());
    }
    entry.header = line.header;
    entry.tensor.offset = line.offset;
    read_name(entry);
    settle_type(entry, line.size);
    check_place(entry);
  }

  void read_name(TensorsEntry& entry) {
    if (entry.path.empty()) bytes_.fail("a tensor without a name");
    if (!is_utf8(entry.path)) {
      bytes_.fail(fmt::format("name {} is not valid UTF-8", quoted(entry.path)));
    }
    try {
      entry.tensor.name = name_of_path(entry.path);
    } catch (const JsonFault& fault) {
      bytes_.fail(fmt::format("path {}: {}", quoted(entry.path), fault.reason));
    }
    if (entry.kind > kStateDict) fail(entry, fmt::format("kind {} is not known", entry.kind));
    if (entry.path.front() == kStructured && entry.kind != kStateDict) {
      fail(entry, "a structured path that is not of a state dict");
    }
    plain_ = plain_ && entry.path.front() != kStructured && !is_of_root(entry);
  }

  // A module's own parameter: tensorizer joins the module's empty name and its own with a dot.
  static bool is_of_root(const TensorsEntry& entry) {
    return entry.kind != kStateDict && entry.path.size() > 1 && entry.path.front() == '.';
  }

  // Parameters of the root go by the names that the module knows, structured paths by their parts.
  void settle_names() {
    if (plain_) return;
    Rivals rivals;
    for (TensorsEntry& entry : entries_) {
      const bool of_root = is_of_root(entry);
      const bool structured = entry.path.front() == kStructured;
      if (of_root) entry.tensor.name.erase(0, 1);
      rivals.add(entry.tensor.name, of_root      ? entry.path
                                    : structured ? entry.path.substr(1)
                                                 : std::string());
    }
    rivals.settle();
  }

  void settle_type(TensorsEntry& entry, uint64_t size) {
    TensorInfo& tensor = entry.tensor;
    const TorchType* type = type_of(entry.dtype);
    if (type == nullptr) fail(entry, fmt::format("dtype {} is not known", quoted(entry.dtype)));
    tensor.shape = entry.shape;
    if (!set_torch_type(*type, tensor)) fail(entry, "its size overflows 64 bits");
    // Whole storages of torch_compat's, of elements of any type.
    if (tensor.dtype == Dtype::u8) tensor.alignment = kStrictestAlignment;
    const uint64_t needed = tensor.size;
    tensor.size = size;
    if (size == 0 && needed != 0) {
      tensor.encoding = kZeros;
    } else if (size != needed) {
      fail(entry, fmt::format("{} bytes, but torch.{}[{}] takes {}", size, type->name,
                              fmt::join(entry.shape, ", "), needed));
    } else if (head_.encrypted && size != 0) {
      tensor.encoding = kSecretbox;
    }
  }

  // Records lie one behind the other, in the order of the index.
  void check_place(const TensorsEntry& entry) {
    const TensorInfo& tensor = entry.tensor;
    if (entry.header < end_ || tensor.offset <= entry.header) {
      fail(entry, fmt::format("its record at {} and its bytes at {} lie over what is before them, "
                              "which ends at {}",
                              entry.header, tensor.offset, end_));
    }
    if (tensor.offset > blob_.size || tensor.size > blob_.size - tensor.offset) {
      fail(entry, fmt::format("its bytes [{}, +{}) reach past the end of the file, which has {}: "
                              "it is truncated",
                              tensor.offset, tensor.size, blob_.size));
    }
    end_ = tensor.offset + tensor.size;
  }

  // What is left of the index has no lines, and the file ends as its writer ended it.
  void check_end() {
    const uint64_t offset = bytes_.offset();
    const auto rest = bytes_.take(head_.index_size - offset);
    if (std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{}; })) {
      bytes_.fail(
          fmt::format("something stands behind the {} lines that it says it has", head_.count));
    }
    if (!blob_.pieced && blob_.size - end_ < kEndSize) {
      throw_at(blob_.name, end_, kEndSize,
               fmt::format("the end reaches past that of the file, which has {} bytes: it is "
                           "truncated",
                           blob_.size));
    }
  }

  [[noreturn]] void fail(const TensorsEntry& entry, const std::string& reason) {
    bytes_.fail(fmt::format("tensor {}: {}", quoted(entry.tensor.name), reason));
  }

  Bytes bytes_;
  const Blob& blob_;
  TensorizerHead head_;
  bool plain_ = true;  // every path is the tensor's name
  uint64_t end_;       // of what is known so far: the index, then one record after the other
  std::vector<TensorsEntry> entries_;
};

}  // namespace

TensorsFile read_tensors_file(Store& store, const Blob& blob) {
  const TensorizerHead head = read_tensorizer_head(store, blob);
  if (head.index_size > blob.size - kTensorizerHeadSize) {
    throw_at(blob.name, kTensorizerHeadSize, head.index_size,
             fmt::format("the index reaches past the end of the file, which has {} bytes: it is "
                         "truncated",
                         blob.size));
  }
  if (head.index_size > kLargestLines) {
    throw_at(blob.name, kTensorizerHeadSize, head.index_size,
             fmt::format("an index over the limit of {} bytes", kLargestLines));
  }
  if (head.count == 0) throw_at(blob.name, 0x39, 8, "it has no tensors");
  std::vector<std::byte> bytes(head.index_size);
  store.read(blob, kTensorizerHeadSize, bytes);
  try {
    return {head.version, head.encrypted, LinesParser(bytes, blob, head).run()};
  } catch (const BytesFault& fault) {
    throw_at(
        blob.name, kTensorizerHeadSize, head.index_size,
        fmt::format("bad index at byte {}: {}", kTensorizerHeadSize + fault.offset, fault.reason));
  }
}

std::vector<TensorsLine> tensors_lines(std::span<const std::byte> index, uint64_t count,
                                       bool tagged) {
  std::vector<TensorsLine> lines;
  Bytes bytes(index);
  try {
    for (uint64_t i = 0; i < count; ++i) {
      const std::string_view path = take_line(bytes, tagged).path;
      lines.push_back({path, path.starts_with(kStructured), bytes.offset()});
    }
  } catch (const BytesFault& fault) {
    throw Error(ErrorCode::data, fmt::format("index at byte {}: {}", fault.offset, fault.reason));
  }
  return lines;
}

bool named_tensorizer(std::string_view entry) { return entry.ends_with(".tensors"); }

bool begins_tensorizer(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  return text.starts_with(kTensorizerMagic);
}

Index index_tensorizer(Store& store, const std::vector<std::string>& entries) {
  Index index;
  index.format = "tensorizer";
  for (const auto& entry : entries) {
    Blob blob = store.open(entry);
    TensorsFile file = read_tensors_file(store, blob);
    index.tensors.reserve(index.tensors.size() + file.entries.size());
    for (auto& line : file.entries) {
      line.tensor.blob = static_cast<uint32_t>(index.blobs.size());
      index.tensors.push_back(std::move(line.tensor));
    }
    index.blobs.push_back(std::move(blob));
  }
  index.finish();
  return index;
}

}  // namespace inrush
