// The ServerlessLLM layout: tensor_index.json beside tensor.data_0, tensor.data_1, ..., in the two
// dialects in use. docs/formats/serverlessllm.md has the layout. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/base/json.h"
#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

inline constexpr std::string_view kServerlessIndex = "tensor_index.json";

// The tensors of an index file whose partitions have these sizes, in order; TensorInfo::blob is
// the partition. `name` is for errors: Error{data}.
std::vector<TensorInfo> parse_serverless_index(const JsonText& json, const std::string& name,
                                               std::span<const uint64_t> partitions);

// The index files in rank_0/, rank_1/, ... of a store. Throws Error{data} where one is missing
// between others.
std::vector<std::string> serverless_ranks(Store& store);

bool named_serverless(std::string_view entry);
bool begins_serverless(std::span<const std::byte> head);

// Index files; where one lies in a folder rank_N, that and a slash go before its tensors' names.
Index index_serverless(Store& store, const std::vector<std::string>& entries);

}  // namespace inrush
