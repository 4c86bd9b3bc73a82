// Writes what safetensors 0.8.0 writes, byte for byte (the layout: formats/safetensors.cpp):
// tensors by dtype, the last of the enum first, then by name; no white space in the JSON; spaces
// behind it up to a multiple of 8. Two things differ, on purpose. safetensors writes several
// metadata keys in an order that changes from run to run; here they are sorted, so equal input
// gives equal files. And for metadata without any tensor it writes what it cannot read itself.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/safetensors.h"
#include "inrush/save.h"

namespace inrush {
namespace {

constexpr uint64_t kLengthSize = 8;
constexpr uint64_t kBlockSize = 4 * kMiB;  // of one write; small tensors are gathered

[[noreturn]] void refuse(const std::string& reason) {
  throw Error(ErrorCode::usage, "save " + reason);
}

void check_text(const char* what, const std::string& text) {
  if (!is_utf8(text)) refuse(fmt::format("{} {}: not valid UTF-8", what, quoted(text)));
}

// The data is what dtype and shape say it is.
void check_tensor(const SaveTensor& tensor) {
  check_text("tensor", tensor.name);
  if (tensor.name == "__metadata__") refuse("tensor \"__metadata__\": the name is taken");
  uint64_t bits = bits_of(tensor.dtype);
  bool overflow = false;
  for (const uint64_t length : tensor.shape) {
    overflow = overflow || __builtin_mul_overflow(bits, length, &bits);
  }
  if (overflow || bits % 8 != 0 || bits / 8 != tensor.data.size()) {
    refuse(fmt::format("tensor {}: {} bytes given, but {}[{}] takes {}", quoted(tensor.name),
                       tensor.data.size(), name_of(tensor.dtype), fmt::join(tensor.shape, ", "),
                       overflow ? "more than 2^64 bits" : fmt::format("{} bits", bits)));
  }
}

void sort_and_check(std::vector<SaveTensor>& tensors) {
  for (const auto& tensor : tensors) check_tensor(tensor);
  std::sort(tensors.begin(), tensors.end(), [](const SaveTensor& a, const SaveTensor& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  std::vector<std::string_view> names;
  for (const auto& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) refuse(fmt::format("tensor {}: given twice", quoted(*twice)));
}

std::string metadata_json(const std::map<std::string, std::string>& metadata) {
  std::string json = "\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    check_text("metadata key", key);
    check_text("metadata value", value);
    if (json.back() != '{') json += ',';
    json += json_string(key) + ":" + json_string(value);
  }
  return json + "}";
}

// Gathers small pieces and hands on large ones, in writes that begin at multiples of the block.
class BlockWriter {
 public:
  BlockWriter(Writer& writer, uint64_t total) : writer_(writer) {
    block_.reserve(std::min(total, kBlockSize));
  }

  void append(std::span<const std::byte> data) {
    while (!data.empty()) {
      const uint64_t whole = align_down(data.size(), kBlockSize);
      const bool through = block_.empty() && whole > 0;
      const size_t count =
          through ? whole : std::min<uint64_t>(data.size(), kBlockSize - block_.size());
      const auto part = data.first(count);
      if (through) {
        write(part);
      } else {
        block_.insert(block_.end(), part.begin(), part.end());
        if (block_.size() == kBlockSize) flush();
      }
      data = data.subspan(count);
    }
  }

  void flush() {
    write(block_);
    block_.clear();
  }

 private:
  void write(std::span<const std::byte> data) {
    if (!data.empty()) writer_.write(offset_, data);
    offset_ += data.size();
  }

  Writer& writer_;
  std::vector<std::byte> block_;
  uint64_t offset_ = 0;
};

}  // namespace

std::string safetensors_header(std::vector<SaveTensor>& tensors,
                               const std::optional<std::map<std::string, std::string>>& metadata) {
  sort_and_check(tensors);
  std::string header(kLengthSize, '\0');
  header += '{';
  if (metadata) header += metadata_json(*metadata);
  uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    if (header.size() > kLengthSize + 1) header += ',';
    const uint64_t end = offset + tensor.data.size();
    header += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          json_string(tensor.name), name_of(tensor.dtype),
                          fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  header += '}';
  header.resize(align_up(header.size(), kLengthSize), ' ');
  uint64_t length = header.size() - kLengthSize;
  if (length > kLargestSafetensorsHeader) {
    refuse(fmt::format("a header of {} bytes: over the limit of {}", length,
                       kLargestSafetensorsHeader));
  }
  for (size_t i = 0; i < kLengthSize; ++i, length >>= 8) {
    header[i] = static_cast<char>(length & 0xFF);
  }
  return header;
}

void save_file(const std::string& path, std::vector<SaveTensor> tensors,
               const SaveOptions& options) {
  const std::string header = safetensors_header(tensors, options.metadata);
  uint64_t total = header.size();
  for (const auto& tensor : tensors) total += tensor.data.size();
  const auto writer = make_file_writer(path, options.sync);
  writer->create(total);
  BlockWriter blocks(*writer, total);
  blocks.append(std::as_bytes(std::span(header)));
  for (const auto& tensor : tensors) blocks.append(tensor.data);
  blocks.flush();
  writer->finish();
}

}  // namespace inrush
