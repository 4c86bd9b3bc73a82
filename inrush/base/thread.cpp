#include "inrush/base/thread.h"

#include <pthread.h>

#include <csignal>
#include <string>
#include <system_error>
#include <utility>

#include "inrush/core/error.h"

namespace inrush {
namespace {

// A thread inherits the mask of the one that starts it.
class SignalsMasked {
 public:
  SignalsMasked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsMasked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsMasked(const SignalsMasked&) = delete;
  SignalsMasked& operator=(const SignalsMasked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

std::thread start_thread(std::string_view what, std::function<void()> work) {
  const SignalsMasked masked;
  try {
    return std::thread(std::move(work));
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::memory,
                "start a thread that " + std::string(what) + ": " + error.code().message());
  }
}

}  // namespace inrush
