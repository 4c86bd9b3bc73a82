// The table of stores, by URI scheme; a bare path is a directory or a file.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/storage.h"
#include "inrush/core/store.h"
#include "inrush/core/writer.h"

namespace inrush {

// A store and, where the URI names one entry in it, that entry (else "").
struct Place {
  std::unique_ptr<Store> store;
  std::string entry;
};

struct StoreRow {
  const char* scheme;  // "file"
  Place (*find)(const std::string& uri, const StorageOptions& options);
  // What writes one file there; nullptr: this store is for reading only.
  std::unique_ptr<Writer> (*write)(const std::string& uri, const StorageOptions& options);
  // Removes what one wrote; nullptr where `write` is.
  void (*remove)(const std::string& uri, const StorageOptions& options);
};

std::span<const StoreRow> store_table();

// What a path or a URI names. Throws Error{usage} for a scheme that is not built, naming what would
// provide it, and Error{source} if nothing is there.
// Options are a remote store's: with a local path, any are an Error{usage}.
Place find_place(const std::string& uri, const StorageOptions& options = {});

// The path that a URI of a file on this machine names; any other place as it is. Throws
// Error{usage} for a file of another host.
std::string local_path(const std::string& place);

// Whether it is a URI of a place that is not on this machine.
bool is_remote(const std::string& uri);

// A writer of one file of a remote place. Throws Error{usage} where nothing can be written.
std::unique_ptr<Writer> make_remote_writer(const std::string& uri, const StorageOptions& options);

// Removes one file of a remote place, if it is there. Throws Error.
void remove_remote(const std::string& uri, const StorageOptions& options);

// One store over several local files, whose entries are the paths as given.
std::unique_ptr<Store> make_file_list(std::vector<std::string> paths);

}  // namespace inrush
