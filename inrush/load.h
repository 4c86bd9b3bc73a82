// A Load brings the wanted tensors of a checkpoint into memory. It begins when it is made; its
// reads go on in the background whoever looks. One consumer thread calls next(); every other
// method may be called from any thread.
//
//   inrush::Load load(checkpoint, {});
//   while (auto tensor = load.next()) use(*tensor);
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inrush/checkpoint.h"
#include "inrush/core/allocator.h"
#include "inrush/core/decoder.h"
#include "inrush/core/engine.h"
#include "inrush/core/ledger.h"
#include "inrush/core/plan.h"
#include "inrush/policy/choose.h"

namespace inrush {

enum class Order : uint8_t {
  file,   // file name, then offset: identical on every rank
  ready,  // as the bytes come
  given,  // as the selection lists them
};

struct Progress {
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  double seconds = 0;
};

// Makes the engine of a lane; replaced in tests to wrap or to invent engines.
using EngineFactory =
    std::function<std::unique_ptr<Engine>(const std::string& name, const EngineOptions& options)>;

struct LoadOptions {
  ChoiceRequest choice;
  Order order = Order::file;
  // One per consumer; empty: one consumer that wants everything.
  std::vector<Selection> selections;
  PlanLimits limits;
  // Most bytes of staging, engine buffers and tensors read but not yet handed over. 0: automatic.
  uint64_t budget = 0;
  uint64_t device_budget = 0;  // bytes of device memory that CUFILE reads into; 0: automatic
  std::string direct_device;   // set by deliver_to(): whose memory storage may write, "cuda:0"
  NumaNode numa;               // set by deliver_to(): where lanes are kept
  TargetFact target;           // set by deliver_to(): where all tensors go
  // Keep every tensor until next() asks for it: nothing waits for the consumer, and only staging
  // counts against the budget. wait() needs it.
  bool collect = false;
  Allocator allocator;  // empty: memory of Inrush's own
  // Bytes of memory that tensors share: each is a view that is used again once it dies, and next()
  // throws Error{memory} at once where the caller keeps too many. 0: each has memory to keep.
  uint64_t pool = 0;
  std::map<std::string, Memory> out;  // destinations by name, of tensors that one consumer wants
  DecoderFactory decoder;
  std::function<void(const Progress&)>
      progress;  // called on a thread of the load's, at most 10 times a second
  bool trace = false;
  EngineFactory engines;  // empty: the table
  SinkFactory sink;       // empty: host memory
};

struct TraceEvent {
  std::string lane;
  std::string blob;
  uint64_t offset = 0;
  uint64_t size = 0;
  double start = 0;  // seconds since the load began
  double end = 0;
  const char* kind = "read";         // read, map, copy, decode, wait
  uint32_t source = 0;               // of LoadStats::sources
  uint32_t retries = 0, hedges = 0;  // of the requests it took
};

// One place that a load reads from: the checkpoint's own, or a mirror.
struct SourceStats {
  std::string uri;
  uint64_t bytes = 0, reads = 0;  // that came
  uint64_t retries = 0;           // requests repeated, by the load or inside the engine
  uint64_t hedges = 0;  // second requests: beside a silent one, or of what another source owes
  bool given_up = false;
};

struct LoadStats {
  std::string choice, why;
  uint64_t bytes = 0;       // delivered or ready to be
  uint64_t bytes_read = 0;  // through engines
  uint64_t bytes_mapped = 0;
  uint64_t bytes_copied = 0;  // moved once more from a slot
  uint64_t reads = 0, retries = 0, hedges = 0, tensors = 0;
  double seconds = 0;                // from the beginning to the last byte
  double seconds_to_first = 0;       // to the first tensor that could be handed over
  double consumer_wait = 0;          // seconds next() waited for bytes
  double budget_wait = 0;            // lane seconds spent waiting for budget
  uint64_t peak_staging = 0;         // bytes under the budget, at most
  uint64_t peak_device_staging = 0;  // bytes under the device budget, at most
  uint64_t budget = 0;
  uint64_t orphaned = 0;  // bytes a stuck read still holds
  uint32_t lanes = 0;
  uint32_t depth = 0;                  // in flight per lane when it ended
  std::vector<std::string> fallbacks;  // why lanes were replaced in mid-load
  std::vector<SourceStats> sources;    // the checkpoint's own place, then its mirrors
};

class Load {
 public:
  // Plans, chooses and begins. Throws Error for what is wrong before the first byte.
  Load(const Checkpoint& checkpoint, LoadOptions options);
  // Cancels what still runs; returns within a second even when a read is stuck in the kernel.
  ~Load();
  Load(Load&&) noexcept;
  Load& operator=(Load&&) noexcept;

  // The next tensor in order, or nothing after the last. Throws the load's Error.
  std::optional<Tensor> next();

  // As next(), but gives up at the deadline: sets `timed_out` and returns nothing.
  std::optional<Tensor> next(Deadline deadline, bool& timed_out);

  // Waits until every byte is in place; false at the deadline. Throws the load's Error.
  bool wait(Deadline deadline);

  // Stops it: next() and wait() throw Error{cancelled} from now on.
  void cancel();

  [[nodiscard]] LoadStats stats() const;
  [[nodiscard]] const Plan& plan() const;
  [[nodiscard]] const Facts& facts() const;
  [[nodiscard]] const Choice& choice() const;
  [[nodiscard]] std::vector<TraceEvent> trace() const;
  // Digests that decoders returned, by tensor name; complete after the last tensor.
  [[nodiscard]] std::map<std::string, std::string> digests() const;
  // Which bytes of which blobs have arrived so far.
  [[nodiscard]] Ledger ledger() const;

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace inrush
