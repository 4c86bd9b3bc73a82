#include "inrush/engines/layered.h"

#include <algorithm>
#include <utility>

#include "inrush/engines/submission.h"

namespace inrush {

void LayeredEngine::submit(std::span<const Read> reads) {
  check_room(traits(), reads.size(), flights_.size());
  const uint64_t first = next_id_;
  std::vector<Read> parts;
  for (const Read& read : reads) {
    Flight& flight = flights_[next_id_];
    flight.id = next_id_++;
    flight.read = flight.part = read;
    starts(flight);
    flight.part.tag = flight.id;
    ++flight.tries;
    parts.push_back(flight.part);
  }
  try {
    inner_->submit(parts);
  } catch (...) {
    for (uint64_t id = first; id < next_id_; ++id) flights_.erase(id);
    throw;
  }
}

void LayeredEngine::again(Flight& flight, const Read& part, Deadline when) {
  flight.part = part;
  flight.part.tag = flight.id;
  events_.emplace(when, Event{.id = flight.id, .again = true, .error = std::nullopt});
}

void LayeredEngine::answer(Flight& flight, std::optional<Error> error, Deadline when) {
  events_.emplace(when, Event{.id = flight.id, .again = false, .error = std::move(error)});
}

void LayeredEngine::ask_again(Flight& flight) {
  if (cancelled_) {
    return answer(flight, Error(ErrorCode::cancelled, "the read was cancelled"), Clock::now());
  }
  try {
    ++flight.tries;
    inner_->submit({&flight.part, 1});
  } catch (const Error& error) {
    answer(flight, error, Clock::now());
  }
}

size_t LayeredEngine::take_due(std::span<Completion> done) {
  size_t count = 0;
  while (count < done.size() && !events_.empty()) {
    const auto first = events_.begin();
    if (!cancelled_ && first->first > Clock::now()) break;
    Event event = std::move(first->second);
    events_.erase(first);
    const auto flight = flights_.find(event.id);
    if (event.again) {
      ask_again(flight->second);
    } else {
      done[count++] = {.tag = flight->second.read.tag,
                       .error = std::move(event.error),
                       .retries = flight->second.retries,
                       .hedges = flight->second.hedges};
      flights_.erase(flight);
    }
  }
  return count;
}

size_t LayeredEngine::wait(std::span<Completion> done, Deadline deadline) {
  Completion landings[64];
  for (;;) {
    const size_t count = take_due(done);
    if (count > 0) return count;
    const Deadline until = events_.empty() ? deadline : std::min(deadline, events_.begin()->first);
    const size_t there = inner_->wait(landings, until);
    for (size_t i = 0; i < there; ++i) {
      Flight& flight = flights_.at(landings[i].tag);
      flight.retries += landings[i].retries;
      flight.hedges += landings[i].hedges;
      landed(flight, std::move(landings[i].error));
    }
    if (there > 0) continue;
    // Nothing landed before its time: somebody rang, or the caller's deadline has passed.
    const auto now = Clock::now();
    if (now >= deadline || now < until) return take_due(done);
  }
}

void LayeredEngine::cancel() {
  cancelled_ = true;
  inner_->cancel();
}

}  // namespace inrush
