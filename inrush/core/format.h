// A Format is a table row: a kind of checkpoint, recognised by its first bytes and turned into an
// Index through a read-only view of a Store. No sockets, no threads of its own.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/index.h"
#include "inrush/core/store.h"

namespace inrush {

struct Format {
  const char* name;

  // By the name and the first bytes (up to 16) of one entry.
  bool (*recognises)(const std::string& entry, std::span<const std::byte> head);

  // The index over these entries. Throws Error{data} naming file, range and reason.
  Index (*index)(Store& store, const std::vector<std::string>& entries);

  // Each entry can be indexed by itself; read_index() does so concurrently and joins the results.
  bool separate;
};

}  // namespace inrush
