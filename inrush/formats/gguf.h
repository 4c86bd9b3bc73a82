// GGUF, the format of llama.cpp. docs/formats/gguf.md has the layout. Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

bool named_gguf(std::string_view entry);
bool begins_gguf(std::span<const std::byte> head);

// Tensors of a quantised type are bytes, U8, with the bytes of a row as their last dimension and
// the type as their encoding: "q4_k". Shapes are outermost dimension first, as everywhere here.
Index index_gguf(Store& store, const std::vector<std::string>& entries);

}  // namespace inrush
