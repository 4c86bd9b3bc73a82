// What engines that hold an engine share: every read is followed from its submission to its
// completion, and what the inner engine answers may be asked for again or held back for a time.
// Layers stack in any order. Threads as for any engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "inrush/core/engine.h"

namespace inrush {

class LayeredEngine : public Engine {
 public:
  explicit LayeredEngine(std::unique_ptr<Engine> inner) : inner_(std::move(inner)) {}

  [[nodiscard]] EngineTraits traits() const override { return inner_->traits(); }
  uint32_t open(const Blob& blob) override { return inner_->open(blob); }
  void attach(const Region& region) override { inner_->attach(region); }
  void submit(std::span<const Read> reads) final;
  size_t wait(std::span<Completion> done, Deadline deadline) final;
  void cancel() final;

 protected:
  struct Flight {
    uint64_t id = 0;
    Read read;             // as it was submitted
    Read part;             // what the inner engine was asked for last
    uint32_t tries = 0;    // times it was asked, for the layer's own use
    Deadline due{};        // for the layer's own use
    uint32_t retries = 0;  // of the layer and those below, as the completion says them
    uint32_t hedges = 0;
  };

  // A read is about to go to the inner engine for the first time; the layer may cut its `part`.
  virtual void starts(Flight&) {}

  // The inner engine has answered: calls one of again() and answer(), once.
  virtual void landed(Flight& flight, std::optional<Error> error) = 0;

  // At `when` or soon after: asks the inner engine for `part`, or completes the read.
  void again(Flight& flight, const Read& part, Deadline when);
  void answer(Flight& flight, std::optional<Error> error, Deadline when);

  [[nodiscard]] bool cancelled() const { return cancelled_; }

 private:
  struct Event {
    uint64_t id = 0;
    bool again = false;
    std::optional<Error> error;
  };

  size_t take_due(std::span<Completion> done);
  void ask_again(Flight& flight);

  std::unique_ptr<Engine> inner_;
  std::atomic<bool> cancelled_{false};
  uint64_t next_id_ = 0;
  std::unordered_map<uint64_t, Flight> flights_;
  std::multimap<Deadline, Event> events_;
};

}  // namespace inrush
