// Byte layout of a GGUF file, versions 2 and 3, little-endian; text is a u64 length and UTF-8:
//
//   "GGUF"  u32 version  u64 count of tensors  u64 count of metadata
//   metadata: text key, u32 type, value
//     types: 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f32, 7 bool, 8 text,
//            9 array (u32 type, u64 count, values), 10 u64, 11 i64, 12 f64
//   tensors: text name, u32 count of dimensions (1 to 4), u64 lengths (innermost first),
//            u32 type, u64 offset from the data
//   the data, at the next multiple of general.alignment (32)
//
// Each tensor begins at a multiple of the alignment. Rows are whole blocks of the type.
#include "inrush/formats/gguf.h"
#include "inrush/formats/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <type_traits>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/bytes.h"

namespace inrush {
namespace {

using namespace std::string_view_literals;

constexpr uint64_t kFirstRequest = 1ULL << 20;      // vocabularies make headers of megabytes
constexpr uint64_t kLargestHeader = 1ULL << 30;     // bytes
constexpr uint64_t kLargestTensor = 1ULL << 60;     // bytes
constexpr uint64_t kLargestMetadataText = 1 << 16;  // bytes of one value that are kept
constexpr uint64_t kLongestArray = 512;             // values that are kept: no vocabulary
constexpr int kDeepestArray = 8;                    // arrays of arrays
constexpr uint32_t kMostDimensions = 4;

// What a type's blocks are: so many elements in so many bytes.
struct Type {
  uint32_t number;
  std::string_view name;
  std::optional<Dtype> dtype;  // of the types without blocks
  uint32_t elements;
  uint32_t bytes;
};

constexpr std::array kTypes{
    Type{0, "f32", Dtype::f32, 1, 4},
    Type{1, "f16", Dtype::f16, 1, 2},
    Type{2, "q4_0", std::nullopt, 32, 18},
    Type{3, "q4_1", std::nullopt, 32, 20},
    Type{6, "q5_0", std::nullopt, 32, 22},
    Type{7, "q5_1", std::nullopt, 32, 24},
    Type{8, "q8_0", std::nullopt, 32, 34},
    Type{9, "q8_1", std::nullopt, 32, 36},
    Type{10, "q2_k", std::nullopt, 256, 84},
    Type{11, "q3_k", std::nullopt, 256, 110},
    Type{12, "q4_k", std::nullopt, 256, 144},
    Type{13, "q5_k", std::nullopt, 256, 176},
    Type{14, "q6_k", std::nullopt, 256, 210},
    Type{15, "q8_k", std::nullopt, 256, 292},
    Type{16, "iq2_xxs", std::nullopt, 256, 66},
    Type{17, "iq2_xs", std::nullopt, 256, 74},
    Type{18, "iq3_xxs", std::nullopt, 256, 98},
    Type{19, "iq1_s", std::nullopt, 256, 50},
    Type{20, "iq4_nl", std::nullopt, 32, 18},
    Type{21, "iq3_s", std::nullopt, 256, 110},
    Type{22, "iq2_s", std::nullopt, 256, 82},
    Type{23, "iq4_xs", std::nullopt, 256, 136},
    Type{24, "i8", Dtype::i8, 1, 1},
    Type{25, "i16", Dtype::i16, 1, 2},
    Type{26, "i32", Dtype::i32, 1, 4},
    Type{27, "i64", Dtype::i64, 1, 8},
    Type{28, "f64", Dtype::f64, 1, 8},
    Type{29, "iq1_m", std::nullopt, 256, 56},
    Type{30, "bf16", Dtype::bf16, 1, 2},
    Type{34, "tq1_0", std::nullopt, 256, 54},
    Type{35, "tq2_0", std::nullopt, 256, 66},
    Type{39, "mxfp4", std::nullopt, 32, 17},
    Type{40, "nvfp4", std::nullopt, 64, 36},
    Type{41, "q1_0", std::nullopt, 128, 18},
};

constexpr uint32_t kText = 8;
constexpr uint32_t kArray = 9;
// Bytes of a value of each type; 0: it says itself.
constexpr std::array<uint8_t, 13> kSizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct Header {
  std::vector<TensorInfo> tensors;  // offsets from the data
  std::map<std::string, std::string> metadata;
  uint64_t alignment = 32;
  uint64_t size = 0;  // bytes before the data, without padding
};

class GgufParser {
 public:
  explicit GgufParser(std::span<const std::byte> bytes) : bytes_(bytes) {}

  Header run() {
    bytes_.take(4);
    const auto version = bytes_.number<uint32_t>();
    if (version != 2 && version != 3) {
      const bool swapped = version == 0x02000000 || version == 0x03000000;
      bytes_.fail(swapped ? "big-endian, and only little-endian is read"
                          : fmt::format("version {} is not known: 2 and 3 are", version));
    }
    const auto tensors = bytes_.number<uint64_t>();
    const auto metadata = bytes_.number<uint64_t>();
    for (uint64_t i = 0; i < metadata; ++i) read_metadata();
    for (uint64_t i = 0; i < tensors; ++i) read_tensor();
    header_.size = bytes_.offset();
    return std::move(header_);
  }

 private:
  std::string_view text() {
    const std::string_view text = bytes_.text(bytes_.number<uint64_t>());
    if (!is_utf8(text)) bytes_.fail("text that is not valid UTF-8");
    return text;
  }

  void read_metadata() {
    const std::string key(text());
    const auto type = bytes_.number<uint32_t>();
    std::string value = read_value(type);
    if (key == "general.alignment") settle_alignment(type, value);
    if (!header_.metadata.try_emplace(key, std::move(value)).second) {
      bytes_.fail(fmt::format("its metadata has {} twice", quoted(key)));
    }
  }

  void settle_alignment(uint32_t type, const std::string& value) {
    constexpr uint32_t kU32 = 4;
    const uint64_t alignment = type == kU32 ? std::stoul(value) : 0;
    if (!std::has_single_bit(alignment) || alignment < 8 || alignment > (1U << 30)) {
      bytes_.fail(fmt::format("general.alignment is {}", quoted(value)));
    }
    header_.alignment = alignment;
  }

  // As JSON, but for texts that stand alone. What is too long is checked, and given by its length.
  std::string read_value(uint32_t type) {
    if (type >= kSizes.size()) bytes_.fail(fmt::format("metadata of type {}", type));
    if (type == kText) {
      const std::string_view value = text();
      return value.size() <= kLargestMetadataText ? std::string(value)
                                                  : fmt::format("[{} bytes]", value.size());
    }
    if (type == kArray) return read_array(0);
    return number_text(type);
  }

  std::string read_array(int depth) {
    if (depth == kDeepestArray)
      bytes_.fail(fmt::format("arrays nested deeper than {}", kDeepestArray));
    const auto type = bytes_.number<uint32_t>();
    const auto count = bytes_.number<uint64_t>();
    if (type >= kSizes.size()) bytes_.fail(fmt::format("an array of type {}", type));
    std::string all;
    bool shown = type != kArray && count <= kLongestArray;
    if (!shown && kSizes[type] != 0) {
      uint64_t size = 0;
      if (__builtin_mul_overflow(count, uint64_t{kSizes[type]}, &size)) size = ~0ULL;
      bytes_.take(size);
    } else {
      for (uint64_t i = 0; i < count; ++i) {
        if (type == kArray) {
          read_array(depth + 1);
          continue;
        }
        std::string value = type == kText ? std::string() : number_text(type);
        // Tokens may be any bytes.
        if (type == kText) {
          const std::string_view raw = bytes_.text(bytes_.number<uint64_t>());
          shown = shown && raw.size() <= kLargestMetadataText - all.size() && is_utf8(raw);
          if (shown) value = json_string(raw);
        }
        if (!shown) continue;
        all += (i == 0 ? "" : ",") + value;
        shown = all.size() <= kLargestMetadataText;
      }
    }
    return shown ? "[" + all + "]" : fmt::format("[{} values]", count);
  }

  std::string number_text(uint32_t type) {
    const auto real = [](auto bits, auto zero) {
      auto value = zero;
      static_assert(sizeof bits == sizeof zero);
      std::copy_n(reinterpret_cast<const char*>(&bits), sizeof bits,
                  reinterpret_cast<char*>(&value));
      return fmt::format("{}", value);
    };
    switch (type) {
      case 0:
        return std::to_string(bytes_.number<uint8_t>());
      case 1:
        return std::to_string(bytes_.number<int8_t>());
      case 2:
        return std::to_string(bytes_.number<uint16_t>());
      case 3:
        return std::to_string(bytes_.number<int16_t>());
      case 4:
        return std::to_string(bytes_.number<uint32_t>());
      case 5:
        return std::to_string(bytes_.number<int32_t>());
      case 6:
        return real(bytes_.number<uint32_t>(), 0.0F);
      case 7:
        return bytes_.number<uint8_t>() != 0 ? "true" : "false";
      case 10:
        return std::to_string(bytes_.number<uint64_t>());
      case 11:
        return std::to_string(bytes_.number<int64_t>());
      default:
        return real(bytes_.number<uint64_t>(), 0.0);
    }
  }

  void read_tensor() {
    TensorInfo& tensor = header_.tensors.emplace_back();
    tensor.name = text();
    const auto dimensions = bytes_.number<uint32_t>();
    if (dimensions > kMostDimensions) fail(tensor, fmt::format("{} dimensions", dimensions));
    for (uint32_t i = 0; i < dimensions; ++i) tensor.shape.push_back(bytes_.number<uint64_t>());
    std::reverse(tensor.shape.begin(), tensor.shape.end());
    const auto number = bytes_.number<uint32_t>();
    tensor.offset = bytes_.number<uint64_t>();
    const auto* const type = std::find_if(kTypes.begin(), kTypes.end(),
                                          [&](const Type& row) { return row.number == number; });
    if (type == kTypes.end()) fail(tensor, fmt::format("type {} is not known", number));
    settle(tensor, *type);
  }

  void settle(TensorInfo& tensor, const Type& type) {
    if (type.dtype) {
      tensor.dtype = *type.dtype;
    } else {
      if (tensor.shape.empty() || tensor.shape.back() % type.elements != 0) {
        fail(tensor,
             fmt::format("rows of {} are no whole blocks of {}, which have {} elements",
                         tensor.shape.empty() ? 1 : tensor.shape.back(), type.name, type.elements));
      }
      tensor.encoding = type.name;
      tensor.shape.back() /= type.elements;
      if (__builtin_mul_overflow(tensor.shape.back(), uint64_t{type.bytes}, &tensor.shape.back())) {
        fail(tensor, "its size overflows 64 bits");
      }
    }
    tensor.size = type.dtype ? type.bytes : 1;
    for (const uint64_t length : tensor.shape) {
      if (__builtin_mul_overflow(tensor.size, length, &tensor.size) ||
          tensor.size > kLargestTensor) {
        fail(tensor, "its size overflows 64 bits");
      }
    }
  }

  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& reason) {
    bytes_.fail(fmt::format("tensor {}: {}", quoted(tensor.name), reason));
  }

  Bytes bytes_;
  Header header_;
};

// The header says nowhere how long it is: what was read is doubled until it holds all of it.
Header read_gguf_header(Store& store, const Blob& blob) {
  std::vector<std::byte> bytes;
  uint64_t size = std::min(blob.size, kFirstRequest);
  while (true) {
    const uint64_t known = bytes.size();
    bytes.resize(size);
    store.read(blob, known, std::span(bytes).subspan(known));
    if (!begins_gguf(bytes)) throw_at(blob.name, 0, size, "no GGUF file");
    try {
      return GgufParser(bytes).run();
    } catch (const BytesFault& fault) {
      const bool cut_off = fault.reason == "it is cut off";
      if (!cut_off || size == blob.size || size >= kLargestHeader) {
        throw_at(blob.name, 0, size,
                 fmt::format("bad GGUF header at byte {}: {}", fault.offset, fault.reason));
      }
    }
    size = std::min(blob.size, size * 4);
  }
}

void check_places(const Blob& blob, const Header& header, uint64_t data,
                  std::vector<TensorInfo>& tensors) {
  for (auto& tensor : tensors) {
    const auto fail = [&](const std::string& reason) {
      throw_at(blob.name, data + tensor.offset, tensor.size,
               fmt::format("tensor {}: {}", quoted(tensor.name), reason));
    };
    if (tensor.offset % header.alignment != 0) {
      fail(fmt::format("its offset is no multiple of {}", header.alignment));
    }
    if (data > blob.size || tensor.size > blob.size - data ||
        tensor.offset > blob.size - data - tensor.size) {
      fail(
          fmt::format("it reaches past the end of the file, which has {} bytes: it is truncated, "
                      "or its header is wrong",
                      blob.size));
    }
    tensor.offset += data;
  }
  std::vector<const TensorInfo*> order;
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->offset, a->size) < std::pair(b->offset, b->size);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->offset + order[i - 1]->size <= order[i]->offset) continue;
    throw_at(blob.name, order[i]->offset, order[i]->size,
             fmt::format("tensors {} and {} overlap", quoted(order[i - 1]->name),
                         quoted(order[i]->name)));
  }
}

}  // namespace

bool named_gguf(std::string_view entry) { return entry.ends_with(".gguf"); }

bool begins_gguf(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  return text.starts_with("GGUF"sv);
}

Index index_gguf(Store& store, const std::vector<std::string>& entries) {
  Index index;
  index.format = "gguf";
  for (const auto& entry : entries) {
    Blob blob = store.open(entry);
    Header header = read_gguf_header(store, blob);
    check_places(blob, header, align_up(header.size, header.alignment), header.tensors);
    for (auto& tensor : header.tensors) {
      tensor.blob = static_cast<uint32_t>(index.blobs.size());
      index.tensors.push_back(std::move(tensor));
    }
    index.blobs.push_back(std::move(blob));
    index.metadata.push_back(std::move(header.metadata));
  }
  index.finish();
  return index;
}

}  // namespace inrush
