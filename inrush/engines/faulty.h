// An engine that does to its inner engine's reads what disks and kernels do on bad days, the same
// for the same seed: errors, reads cut short and resumed, interrupted ones begun anew, completions
// held back and out of order, and something else happening in mid-load.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>

#include "inrush/engines/layered.h"

namespace inrush {

struct FaultOptions {
  uint64_t seed = 1;
  // Shares of the reads, from 0 to 1.
  double failing = 0;      // with Error{source}: Input/output error; after most_failures, no more
  double cut = 0;          // come in two parts, the second asked for when the first is there
  double interrupted = 0;  // are read twice, as after an EINTR
  uint64_t most_failures = UINT64_MAX;
  std::chrono::microseconds longest_delay{
      0};  // of a completion; delays are drawn, so order is lost
  // Called on the lane's thread, once, after so many reads have landed.
  uint64_t hook_after = 0;
  std::function<void()> hook;
};

class FaultyEngine final : public LayeredEngine {
 public:
  FaultyEngine(std::unique_ptr<Engine> inner, FaultOptions options);

 private:
  enum class Fault : uint8_t { none, failing, cut, interrupted };

  void starts(Flight& flight) override;
  void landed(Flight& flight, std::optional<Error> error) override;
  Fault draw();

  FaultOptions options_;
  std::mt19937_64 faults_random_;               // drawn from in the order of submission
  std::mt19937_64 delays_random_;               // and of landing, which no seed decides
  std::unordered_map<uint64_t, Fault> faults_;  // by flight, until they have struck
  uint64_t failures_ = 0;
  uint64_t landings_ = 0;
};

}  // namespace inrush
