// Checkpoints of torch.save: zip archives with a pickle that says which storages make which
// tensors. Nothing of the pickle is run. docs/formats/pytorch.md has the layout. Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

bool named_pytorch(std::string_view entry);
bool begins_pytorch(std::span<const std::byte> head);
Index index_pytorch(Store& store, const std::vector<std::string>& entries);

}  // namespace inrush
