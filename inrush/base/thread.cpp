#include "inrush/base/thread.h"

#include <pthread.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "inrush/base/small_file.h"
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

constexpr const char* kName = "inrush";

}  // namespace

std::thread start_thread(std::string_view what, std::function<void()> work) {
  const SignalsMasked masked;
  try {
    return std::thread([work = std::move(work)] {
      pthread_setname_np(pthread_self(), kName);
      work();
    });
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::memory,
                "start a thread that " + std::string(what) + ": " + error.code().message());
  }
}

bool threads_run() {
  std::error_code error;
  for (std::filesystem::directory_iterator task("/proc/self/task", error), end;
       !error && task != end; task.increment(error)) {
    const std::string line = read_small_file(task->path().string() + "/comm");
    if (line == std::string(kName) + '\n') return true;
  }
  return false;
}

}  // namespace inrush
