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
  uint64_t limit = 0;   // where the next entry's header, or the directory, begins
  uint64_t size = 0;    // bytes
  uint32_t crc32 = 0;   // 0 where torch was told to compute none
  bool stored = true;   // neither compressed nor encrypted
};

// In the order of the directory. Throws Error{data} naming file, range and reason.
std::vector<ZipEntry> read_zip(Store& store, const Blob& blob);

// Where the entry's bytes begin: behind its local header, which is read. They lie in front of its
// limit.
uint64_t offset_of(Store& store, const Blob& blob, const ZipEntry& entry);

}  // namespace inrush
