// The table of engines: one row each. An engine that was left out of this build has a row that
// says why.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "inrush/core/engine.h"

namespace inrush {

struct EngineRow {
  const char* name;     // "uring"
  const char* summary;  // for doctor, one line
  bool remote;          // reads only the blobs that name it, not local files

  // Whether this kernel and process may use it at all; empty: yes, else the reason. Cheap.
  std::string (*unusable)();

  std::unique_ptr<Engine> (*make)(const EngineOptions& options);
};

std::span<const EngineRow> engine_table();

// nullptr if there is none of that name.
const EngineRow* find_engine(std::string_view name);

}  // namespace inrush
