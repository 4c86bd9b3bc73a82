#include "inrush/base/random.h"

#include <sys/random.h>

#include <cerrno>

#include "inrush/base/fd.h"

namespace inrush {

uint64_t random_bits() {
  uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) {
    throw system_error(ErrorCode::source, "get random bytes", errno);
  }
  return bits;
}

}  // namespace inrush
