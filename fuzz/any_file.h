// What an accepted index of any format must be: every tensor inside its blob, found by its name,
// and a plan of all of them that neither crashes nor reads outside.
#pragma once

#include "fuzz/memory_store.h"
#include "inrush/core/plan.h"
#include "inrush/formats/formats.h"

namespace inrush::fuzz {

inline void check_index(const Index& index) {
  Selection all;
  uint64_t delivered = 0;
  for (uint32_t i = 0; i < index.tensors.size(); ++i) {
    const TensorInfo& tensor = index.tensors[i];
    require(tensor.blob < index.blobs.size(), "a tensor lies in a blob");
    const uint64_t size = index.blobs[tensor.blob].size;
    require(tensor.size <= size && tensor.offset <= size - tensor.size, "and inside of it");
    require(index.find(tensor.name) == &tensor, "every tensor is found by its name");
    require(delivered_size(tensor) <= (1ULL << 61), "sizes can be counted in bits");
    delivered += tensor.size;
    all.wants.push_back({i});
  }
  if (delivered > (1U << 20)) return;
  try {
    const Plan plan = make_plan(index, {&all, 1}, {.largest_plan = 1 << 16});
    require(plan.targets.size() == index.tensors.size(), "all are planned");
  } catch (const Error& error) {
    require(error.message().find("plan") != std::string::npos, "a plan says what it refuses");
  }
}

// Reads this file alone under this name.
inline void check_file(const char* name, const uint8_t* data, size_t size) {
  MemoryStore store({{name, std::string(text_of(data, size))}});
  try {
    check_index(read_index(store, {name}));
  } catch (const Error& error) {
    require(error.message().find(name) != std::string::npos, "errors name the file");
  }
}

}  // namespace inrush::fuzz
