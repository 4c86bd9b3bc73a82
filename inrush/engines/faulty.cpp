#include "inrush/engines/faulty.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "inrush/base/align.h"

namespace inrush {

namespace {

double share(std::mt19937_64& random) {
  return std::uniform_real_distribution<double>(0, 1)(random);
}

}  // namespace

FaultyEngine::FaultyEngine(std::unique_ptr<Engine> inner, FaultOptions options)
    : LayeredEngine(std::move(inner)),
      options_(std::move(options)),
      faults_random_(options_.seed),
      delays_random_(options_.seed) {}

FaultyEngine::Fault FaultyEngine::draw() {
  const double drawn = share(faults_random_);
  double below = options_.failing;
  if (drawn < below) {
    return failures_ < options_.most_failures ? (++failures_, Fault::failing) : Fault::none;
  }
  if (drawn < (below += options_.cut)) return Fault::cut;
  if (drawn < (below += options_.interrupted)) return Fault::interrupted;
  return Fault::none;
}

void FaultyEngine::starts(Flight& flight) {
  const Fault fault = draw();
  if (fault == Fault::cut) {
    const uint64_t half = align_down(flight.read.size / 2, traits().offset_align);
    if (half == 0) return;
    flight.part.size = half;
    flight.part.required = std::min(half, flight.read.required);
  }
  if (fault != Fault::none) faults_[flight.id] = fault;
}

void FaultyEngine::landed(Flight& flight, std::optional<Error> error) {
  if (++landings_ == options_.hook_after && options_.hook) options_.hook();
  const auto now = Clock::now();
  const auto found = faults_.find(flight.id);
  const Fault fault = found == faults_.end() ? Fault::none : found->second;
  if (found != faults_.end()) faults_.erase(found);
  if (!error && fault == Fault::cut) {
    Read rest = flight.read;
    const uint64_t done = flight.part.size;
    rest.offset += done;
    rest.target += done;
    rest.size -= done;
    rest.required -= std::min(rest.required, done);
    return again(flight, rest, now);
  }
  if (!error && fault == Fault::interrupted) return again(flight, flight.part, now);
  if (!error && fault == Fault::failing) {
    error = Error(ErrorCode::source, fmt::format("read file {} [{}, +{}) via {}, made to fail: "
                                                 "Input/output error",
                                                 flight.read.file, flight.read.offset,
                                                 flight.read.size, traits().name));
  }
  const auto delay =
      std::chrono::duration_cast<Clock::duration>(options_.longest_delay * share(delays_random_));
  answer(flight, std::move(error), now + delay);
}

}  // namespace inrush
