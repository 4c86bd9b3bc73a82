// The directory of a zip archive whose entries are stored as they are. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/blob.h"
#include "inrush/core/store.h"

namespace inrush {

struct ZipEntry {
  std::string name;
  uint64_t header = 0;  // where its local header begins
  uint64_t size = 0;    // bytes
  bool stored = true;   // neither compressed nor encrypted
};

// Throws Error{data} naming file, range and reason.
std::vector<ZipEntry> read_zip(Store& store, const Blob& blob);

// Where the entry's bytes begin: behind its local header, which is read. They lie inside the blob.
uint64_t offset_of(Store& store, const Blob& blob, const ZipEntry& entry);

}  // namespace inrush
