// *.safetensors.index.json and *.bin.index.json: which files of a folder belong together. Any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "inrush/base/json.h"
#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

struct HfIndex {
  std::string name;                // of its file, for errors
  std::vector<std::string> files;  // as the index names them, sorted, each once
  std::vector<std::pair<std::string, uint32_t>> tensors;  // sorted by name; the file's number
};

// Which of these entries is the index that decides; nothing if none is one. Throws Error{usage}
// that lists them if there are several and none has the name that all know it by.
std::optional<std::string> pick_hf_index(const std::vector<std::string>& entries,
                                         const std::string& uri);

// Throws Error{data} for what is malformed, or names a file outside the folder.
HfIndex parse_hf_index(const JsonText& json, const std::string& name);

HfIndex read_hf_index(Store& store, const std::string& entry);

// Throws Error{data} naming tensors that the index promises and no file has.
void check_promises(const HfIndex& promised, const Index& found);

}  // namespace inrush
