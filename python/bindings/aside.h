// Work that may wait for a place that does not answer, and a caller who can be interrupted.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "inrush/base/thread.h"
#include "python/bindings/bindings.h"

namespace inrush::python {

// Runs work(stopped) on a thread of its own, while the caller waits and looks for Ctrl-C, upon
// which the thread is told and left behind: what hangs in the kernel holds up nobody. The work must
// own all that it uses, and no Python object.
template <typename Work>
auto aside(Work work) {
  using Result = decltype(work(std::declval<const std::function<bool()>&>()));
  struct Task {
    std::mutex mutex;
    std::condition_variable ended;
    std::atomic<bool> stop{false};
    std::optional<Result> result;
    std::exception_ptr error;
    bool done = false;
  };
  auto task = std::make_shared<Task>();
  start_thread("waits for a place", [task, work = std::move(work)] {
    std::optional<Result> result;
    std::exception_ptr error;
    try {
      result.emplace(work([&task] { return task->stop.load(); }));
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(task->mutex);
    task->result = std::move(result);
    task->error = error;
    task->done = true;
    task->ended.notify_all();
  }).detach();
  try {
    wait_watchfully(std::nullopt, [&](Deadline deadline) {
      std::unique_lock lock(task->mutex);
      return task->ended.wait_until(lock, deadline, [&] { return task->done; });
    });
  } catch (...) {
    task->stop = true;
    throw;
  }
  if (task->error) std::rethrow_exception(task->error);
  return std::move(*task->result);
}

}  // namespace inrush::python
