#include "inrush/engines/submission.h"

#include <fmt/format.h>

namespace inrush {

void check_room(const EngineTraits& traits, size_t reads, size_t in_flight) {
  if (reads + in_flight > traits.most_in_flight) {
    throw Error(ErrorCode::usage,
                fmt::format("submit to {}: {} reads on top of {} in flight are more than {}",
                            traits.name, reads, in_flight, traits.most_in_flight));
  }
}

void check_reads(const EngineTraits& traits, std::span<const Read> reads, size_t files) {
  for (const Read& read : reads) {
    if (read.file >= files) throw refused(traits, read, "no such file was opened");
    if (read.size == 0 || read.target == nullptr) {
      throw refused(traits, read, "it has no bytes or no target");
    }
  }
}

Error refused(const EngineTraits& traits, const Read& read, const std::string& why) {
  return {ErrorCode::usage, fmt::format("submit to {}: file {} [{}, +{}): {}", traits.name,
                                        read.file, read.offset, read.size, why)};
}

}  // namespace inrush
