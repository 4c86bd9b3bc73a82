// The interpreter's lock, at its end too.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "inrush/base/thread.h"
#include "inrush/core/engine.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

[[noreturn]] void wait_for_the_end() {
  while (true) ::pause();
}

// Threads that are in C++ without the lock.
std::atomic<size_t>& away() {
  static std::atomic<size_t> count{0};
  return count;
}

// exit() runs the handlers of libraries first registered last; OpenSSL's frees what a daemon's
// thread or a lane may be reading. A process where one still is leaves without them.
void leave_at_once(int status, void* /*nothing*/) {
  if (away() == 0 && !threads_run()) return;
  std::fflush(nullptr);
  ::_exit(status);
}

constexpr std::chrono::milliseconds kLookAtSignals{100};

}  // namespace

GilReleased::GilReleased() : state_(PyEval_SaveThread()) { ++away(); }

GilReleased::~GilReleased() {
  --away();
  try {
    PyEval_RestoreThread(state_);
  } catch (...) {  // the unwinding of pthread_exit(), which must not go on
    wait_for_the_end();
  }
}

GilTaken::GilTaken() {
  try {
    state_ = PyGILState_Ensure();
  } catch (...) {
    wait_for_the_end();
  }
}

std::function<bool()> heeding_signals() {
  return [caller = std::this_thread::get_id(), next = Clock::now()]() mutable {
    if (std::this_thread::get_id() != caller || Clock::now() < next) return false;
    const GilTaken taken;
    next = Clock::now() + kLookAtSignals;
    return PyErr_CheckSignals() != 0;
  };
}

void bind_exit(nb::module_& /*module*/) {
  pthread_atfork(nullptr, nullptr, [] { away() = 0; });
  // Registered when the interpreter has ended, so that nothing is registered after it.
  Py_AtExit([] { ::on_exit(leave_at_once, nullptr); });
}

}  // namespace inrush::python
