#include "inrush/formats/fault.h"

#include <fmt/format.h>

#include "inrush/core/error.h"

namespace inrush {

void throw_at(const std::string& name, uint64_t offset, uint64_t size, const std::string& reason) {
  throw Error(ErrorCode::data, fmt::format("index {} [{}, +{}): {}", name, offset, size, reason));
}

}  // namespace inrush
