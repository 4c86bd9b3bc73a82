// An engine that makes a near store of its inner engine's far: a latency for each request, a rate
// for each handle, a price for jumping about in a file. What is in flight together shares the
// latency, not the rate.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "inrush/engines/layered.h"

namespace inrush {

struct SlowOptions {
  std::chrono::microseconds latency{0};
  uint64_t bytes_per_second = 0;              // of one opened file; 0: no limit
  std::chrono::microseconds jump_penalty{0};  // for a read that does not follow the one before
};

class SlowEngine final : public LayeredEngine {
 public:
  SlowEngine(std::unique_ptr<Engine> inner, const SlowOptions& options);

 private:
  struct Handle {
    uint64_t next_offset = 0;  // where the read before ended
    Deadline busy_until{};
  };

  void starts(Flight& flight) override;
  void landed(Flight& flight, std::optional<Error> error) override;

  SlowOptions options_;
  std::unordered_map<uint32_t, Handle> handles_;  // by Read::file
};

}  // namespace inrush
