// The table of stores, by URI scheme; a bare path is a directory or a file.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/store.h"

namespace inrush {

struct StoreRow {
  const char* scheme;  // "file"
  std::unique_ptr<Store> (*make)(const std::string& uri);
};

std::span<const StoreRow> store_table();

// The store a URI names, and the entry in it where the URI names one entry (else "").
// Throws Error{usage} for a scheme that is not built, naming what would provide it, and
// Error{source} if nothing is there.
struct Place {
  std::unique_ptr<Store> store;
  std::string entry;
};
Place find_place(const std::string& uri);

// One store over several local files, whose entries are the paths as given.
std::unique_ptr<Store> make_file_list(const std::vector<std::string>& paths);

}  // namespace inrush
