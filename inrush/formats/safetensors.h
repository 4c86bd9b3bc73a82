// The safetensors format. Pure but for the reads through the Store; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/base/json.h"
#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

inline constexpr uint64_t kLengthSize = 8;                          // of what begins a file
inline constexpr uint64_t kLargestSafetensorsHeader = 100'000'000;  // bytes of JSON

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in file order; offsets from the file's first byte; blob 0
  std::optional<std::map<std::string, std::string>> metadata;
};

// The JSON of a header, checked against the size of its file. `name` is for errors: Error{data}.
SafetensorsHeader parse_safetensors_header(const JsonText& json, uint64_t file_size,
                                           const std::string& name);

bool named_safetensors(std::string_view entry);
bool begins_safetensors(std::span<const std::byte> head);

Index index_safetensors(Store& store, const std::vector<std::string>& entries);

}  // namespace inrush
