// A Format is a table row: a kind of checkpoint, recognised by what its files begin with and turned
// into an Index through a read-only view of a Store. No sockets, no threads of its own.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

struct Format {
  const char* name;

  // Whether an entry's name is one that such files have: which of a folder's files to look at.
  bool (*named)(std::string_view entry);

  // Whether a file that begins with these bytes (up to 64) is one, whatever its name.
  bool (*begins)(std::span<const std::byte> head);

  // The index over these entries. Throws Error{data} naming file, range and reason.
  Index (*index)(Store& store, const std::vector<std::string>& entries);

  // Each entry can be indexed by itself; read_index() does so concurrently and joins the results.
  bool separate;
};

}  // namespace inrush
