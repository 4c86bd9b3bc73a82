// Copies to one device, on several streams, each batch followed by an event. A thread waits for
// the events and says which batches are done; nobody else ever waits for the device. How many
// streams take part a governor finds, by the rate at which batches get done.
// Any thread. What a batch reads must stay as it is until the batch is done, or finish() is true.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "inrush/base/governor.h"
#include "inrush/core/engine.h"
#include "inrush/shim/device.h"

namespace inrush {

class DeviceCopies {
 public:
  // They are called on the thread that waits, under no lock that submit() takes.
  struct Callbacks {
    std::function<void(uint64_t tag)> done;
    std::function<void()> swept;               // after all that were done at once
    std::function<void(const Error&)> failed;  // once; nothing more is done after that
  };

  DeviceCopies(std::shared_ptr<const Device> device, const GovernorLimits& streams,
               Callbacks callbacks);
  ~DeviceCopies();  // finish(), without asking what came of it
  DeviceCopies(const DeviceCopies&) = delete;
  DeviceCopies& operator=(const DeviceCopies&) = delete;

  // Copies submitted from now on wait for what stands on the consumer's stream by now. With a tag
  // that is done, too, once all of it has run: then the host may write what it worked on.
  void fence(vendor::Stream consumer, std::optional<uint64_t> tag = std::nullopt);

  // Throws what the driver says; part of the batch may be under way then, and stays unannounced.
  void submit(std::span<const DeviceCopy> copies, uint64_t tag);

  // Streams that copies are spread over at present.
  [[nodiscard]] uint32_t streams() const;

  // Zeros, before it returns.
  void fill_zeros(vendor::Address target, uint64_t size);

  // Waits until the device reads and writes nothing more, and gives streams and events back. False
  // at the deadline: the device holds on to the memory of what was submitted.
  bool finish(Deadline deadline);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace inrush
