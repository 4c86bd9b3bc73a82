// A Store that is one folder of a local filesystem, and one that is several local files.
#pragma once

#include <memory>
#include <string>

#include "inrush/core/store.h"

namespace inrush {

// The folder at `path`; `prefix` goes before entry names to make the names of blobs ("" or "x/").
// Throws Error{source}. It holds the folder open: a rename of it does no harm.
std::unique_ptr<Store> make_directory(const std::string& path, const std::string& prefix,
                                      const std::string& uri);

}  // namespace inrush
