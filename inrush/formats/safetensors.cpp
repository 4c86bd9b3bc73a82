// Byte layout of a safetensors file:
//
//   0      8   N, little-endian: the length of the header, at most 100,000,000
//   8      N   JSON, an object; white space before and after it is allowed:
//                {"__metadata__": {"key": "value", ...},            optional
//                 "name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
//   8+N        the tensors' bytes, little-endian, C order; data_offsets count from here
//
// Tensors fill the data from its first byte to the file's last without hole or overlap. They need
// not be aligned. Fields of a tensor that are not known are skipped.
#include "inrush/formats/safetensors.h"
#include "inrush/formats/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <string_view>
#include <utility>

#include "inrush/base/madvise.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/guess.h"

namespace inrush {
namespace {

constexpr std::string_view kSuffix = ".safetensors";
// What the first read of a file brings: most adapters' and many shards' headers whole.
constexpr size_t kFirstRead = 16384;
// Bytes of JSON that a tensor takes; they are 105 to 140 in the models of the Hub.
constexpr size_t kUsualEntry = 96;

uint64_t little_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = kLengthSize; i-- > 0;) value = value << 8 | static_cast<uint64_t>(bytes[i]);
  return value;
}

// Reads the JSON of one file: a tensor after the other, in the order in which they stand there.
class HeaderParser {
 public:
  HeaderParser(const JsonText& json, uint64_t file_size)
      : reader_(json), data_start_(kLengthSize + json.size()), file_size_(file_size) {
    header_.tensors.reserve(json.size() / kUsualEntry);
    advise_huge_pages(header_.tensors.data(), header_.tensors.capacity() * sizeof(TensorInfo));
  }

  SafetensorsHeader run() {
    std::string_view key;
    reader_.enter_object();
    while (reader_.next_field(key)) {
      if (key == "__metadata__") {
        read_metadata();
      } else {
        read_tensor(key);
      }
    }
    reader_.finish();
    return std::move(header_);
  }

 private:
  void read_metadata() {
    if (std::exchange(has_metadata_, true)) reader_.fail("__metadata__ stands in it twice");
    if (reader_.null()) return;
    auto& metadata = header_.metadata.emplace();
    std::string_view key;
    reader_.enter_object();
    while (reader_.next_field(key)) {
      std::string name(key);
      const auto [at, added] = metadata.try_emplace(std::move(name), reader_.string());
      if (!added) {
        reader_.fail(fmt::format("__metadata__ has {} twice", quoted(at->first)));
      }
    }
  }

  void read_tensor(std::string_view name) {
    TensorInfo& tensor = header_.tensors.emplace_back();
    tensor.name = name;
    constexpr unsigned kDtype = 1;
    constexpr unsigned kShape = 2;
    constexpr unsigned kOffsets = 4;
    unsigned seen = 0;
    const auto see = [&](unsigned field, const char* what) {
      if ((seen & field) != 0) fail(tensor, fmt::format("{} stands in it twice", what));
      seen |= field;
    };
    std::string_view key;
    reader_.enter_object();
    while (reader_.next_field(key)) {
      if (key == "dtype") {
        see(kDtype, "dtype");
        read_dtype(tensor);
      } else if (key == "shape") {
        see(kShape, "shape");
        read_shape(tensor);
      } else if (key == "data_offsets") {
        see(kOffsets, "data_offsets");
        read_offsets(tensor);
      } else {
        reader_.skip();
      }
    }
    if ((seen & kDtype) == 0) fail(tensor, "it has no dtype");
    if ((seen & kShape) == 0) fail(tensor, "it has no shape");
    if ((seen & kOffsets) == 0) fail(tensor, "it has no data_offsets");
    check_size(tensor);
  }

  void read_dtype(TensorInfo& tensor) {
    const std::string_view text = reader_.string();
    const auto dtype = dtype_named(text);
    if (!dtype) fail(tensor, fmt::format("dtype {} is not known", quoted(text)));
    tensor.dtype = *dtype;
  }

  void read_shape(TensorInfo& tensor) {
    shape_.clear();
    reader_.enter_array();
    while (reader_.next_element()) shape_.push_back(reader_.unsigned_integer());
    tensor.shape.assign(shape_.begin(), shape_.end());
  }

  // Leaves them counting from the file's first byte.
  void read_offsets(TensorInfo& tensor) {
    std::array<uint64_t, 2> offsets{};
    size_t count = 0;
    reader_.enter_array();
    while (reader_.next_element()) {
      if (count == offsets.size()) fail(tensor, "data_offsets has more than 2 numbers");
      offsets[count++] = reader_.unsigned_integer();
    }
    if (count != offsets.size()) fail(tensor, "data_offsets has fewer than 2 numbers");
    const auto [begin, end] = offsets;
    if (begin > end) {
      fail(tensor, fmt::format("data_offsets [{}, {}] end before they begin", begin, end));
    }
    if (end > file_size_ - data_start_) {
      fail(tensor, fmt::format("data_offsets [{}, {}] reach past the end of the file, which has {} "
                               "bytes of data: it is truncated, or its header is wrong",
                               begin, end, file_size_ - data_start_));
    }
    tensor.offset = data_start_ + begin;
    tensor.size = end - begin;
  }

  void check_size(const TensorInfo& tensor) {
    uint64_t bits = 1;
    bool overflow = false;
    for (const uint64_t length : tensor.shape) {
      overflow = overflow || __builtin_mul_overflow(bits, length, &bits);
    }
    overflow = overflow || __builtin_mul_overflow(bits, uint64_t{bits_of(tensor.dtype)}, &bits);
    const auto named = [&] {
      return fmt::format("{}[{}]", name_of(tensor.dtype), fmt::join(tensor.shape, ", "));
    };
    if (overflow) fail(tensor, fmt::format("the size of {} overflows 64 bits", named()));
    if (bits % 8 != 0) {
      fail(tensor, fmt::format("{} is {} bits, not whole bytes", named(), bits));
    }
    if (bits / 8 != tensor.size) {
      fail(tensor, fmt::format("{} takes {} bytes, but its data_offsets span {}", named(), bits / 8,
                               tensor.size));
    }
  }

  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& reason) {
    reader_.fail(fmt::format("tensor {}: {}", quoted(tensor.name), reason));
  }

  JsonReader reader_;
  const uint64_t data_start_;
  const uint64_t file_size_;
  bool has_metadata_ = false;
  std::vector<uint64_t> shape_;  // of the tensor at hand: grown once, then copied at its size
  SafetensorsHeader header_;
};

// Every byte of the data belongs to exactly one tensor.
void check_cover(std::vector<TensorInfo>& tensors, uint64_t data_start, uint64_t file_size,
                 const std::string& name) {
  const auto before = [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.size < b.size;
  };
  if (!std::is_sorted(tensors.begin(), tensors.end(), before)) {
    std::sort(tensors.begin(), tensors.end(), before);
  }
  uint64_t end = data_start;
  const TensorInfo* last = nullptr;
  for (const auto& tensor : tensors) {
    if (tensor.offset > end) {
      throw_at(name, end, tensor.offset - end,
               fmt::format("no tensor has these bytes, before tensor {}", quoted(tensor.name)));
    }
    if (tensor.offset < end && last->name == tensor.name) {
      throw_at(name, tensor.offset, tensor.size,
               fmt::format("tensor {} stands in the header twice", quoted(tensor.name)));
    }
    if (tensor.offset < end) {
      throw_at(name, tensor.offset, std::min(tensor.size, end - tensor.offset),
               fmt::format("tensors {} and {} overlap", quoted(last->name), quoted(tensor.name)));
    }
    end = tensor.offset + tensor.size;
    last = &tensor;
  }
  if (end != file_size) {
    throw_at(name, end, file_size - end, "the file has bytes behind its last tensor");
  }
}

// The JSON of the blob's header; everything before it is checked.
JsonText read_header(Store& store, const Blob& blob) {
  std::array<std::byte, kFirstRead> buffer;
  const auto head = std::span(buffer).first(std::min<uint64_t>(blob.size, buffer.size()));
  store.read(blob, 0, head);
  if (blob.size < kLengthSize) {
    throw_at(blob.name, 0, kLengthSize,
             fmt::format("no safetensors file: it has {} bytes, and the length of the header takes "
                         "{}{}",
                         blob.size, kLengthSize, seems_to_be(head)));
  }
  const uint64_t length = little_endian(head);
  if (length > kLargestSafetensorsHeader) {
    throw_at(blob.name, 0, kLengthSize,
             fmt::format("no safetensors file: a header of {} bytes, over the limit of {}{}",
                         length, kLargestSafetensorsHeader, seems_to_be(head)));
  }
  if (length == 0) {
    throw_at(blob.name, 0, kLengthSize,
             fmt::format("no safetensors file: a header of 0 bytes{}", seems_to_be(head)));
  }
  if (length > blob.size - kLengthSize) {
    throw_at(blob.name, kLengthSize, length,
             fmt::format("the header reaches past the end of the file, which has {} bytes: it is "
                         "truncated{}",
                         blob.size, seems_to_be(head)));
  }
  JsonText json(length);
  const size_t known = std::min<uint64_t>(length, head.size() - kLengthSize);
  std::memcpy(json.data(), head.data() + kLengthSize, known);
  const auto rest = std::span(json.data() + known, length - known);
  store.read(blob, kLengthSize + known, std::as_writable_bytes(rest));
  return json;
}

}  // namespace

SafetensorsHeader parse_safetensors_header(const JsonText& json, uint64_t file_size,
                                           const std::string& name) {
  assert(file_size >= kLengthSize + json.size());
  SafetensorsHeader header;
  try {
    header = HeaderParser(json, file_size).run();
  } catch (const JsonFault& fault) {
    throw_at(name, kLengthSize, json.size(),
             fmt::format("bad header at byte {}: {}", kLengthSize + fault.offset, fault.reason));
  }
  check_cover(header.tensors, kLengthSize + json.size(), file_size, name);
  return header;
}

bool named_safetensors(std::string_view entry) { return entry.ends_with(kSuffix); }

bool begins_safetensors(std::span<const std::byte> head) {
  if (head.size() <= kLengthSize || little_endian(head) > kLargestSafetensorsHeader) return false;
  // The header begins with '{', by its specification; what safetensors itself reads is any JSON.
  for (const std::byte one : head.subspan(kLengthSize)) {
    if (one == std::byte{'{'}) return true;
    if (std::string_view(" \t\r\n").find(static_cast<char>(one)) == std::string_view::npos) break;
  }
  return false;
}

Index index_safetensors(Store& store, const std::vector<std::string>& entries) {
  Index index;
  index.format = "safetensors";
  for (const auto& entry : entries) {
    Blob blob = store.open(entry);
    auto header = parse_safetensors_header(read_header(store, blob), blob.size, blob.name);
    const auto number = static_cast<uint32_t>(index.blobs.size());
    for (auto& tensor : header.tensors) tensor.blob = number;
    if (index.tensors.empty()) {
      index.tensors = std::move(header.tensors);
    } else {
      std::move(header.tensors.begin(), header.tensors.end(), std::back_inserter(index.tensors));
    }
    index.blobs.push_back(std::move(blob));
    index.metadata.push_back(std::move(header.metadata));
  }
  index.finish();
  return index;
}

}  // namespace inrush
