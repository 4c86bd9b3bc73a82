// A writer whose caller may want to stop. Its threads are those of the writer in it.
#pragma once

#include <functional>
#include <memory>

#include "inrush/core/writer.h"

namespace inrush {

// Asks before each part and before the end; true is Error{cancelled}. `writer` itself where nobody
// is to be asked.
std::unique_ptr<Writer> watched(std::unique_ptr<Writer> writer, std::function<bool()> stopped);

}  // namespace inrush
