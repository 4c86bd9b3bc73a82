#include "inrush/base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <string>

#include "inrush/base/parallel.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

bool masked(int signal) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, signal) == 1;
}

TEST(Thread, takes_no_signals_and_leaves_the_starters_mask) {
  bool interrupts = false;
  bool ends = false;
  start_thread("is tested", [&] {
    interrupts = !masked(SIGINT);
    ends = !masked(SIGTERM);
  }).join();
  EXPECT_FALSE(interrupts);
  EXPECT_FALSE(ends);
  EXPECT_FALSE(masked(SIGINT));
  EXPECT_FALSE(masked(SIGTERM));
}

TEST(Thread, is_known_by_its_name_while_it_runs) {
  EXPECT_FALSE(threads_run());
  start_thread("is tested", [] { EXPECT_TRUE(threads_run()); }).join();
  // The kernel takes a thread off its list a moment after it lets join() return.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (threads_run() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_FALSE(threads_run());
}

// In a child: the limit counts all processes of the user, and root has none.
template <typename Work>
int exit_status_without_threads(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_NPROC, &none);
    if (::getuid() == 0 && ::setuid(65534) != 0) ::_exit(100);
    ::_exit(work());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Thread, that_cannot_be_had_is_an_error_that_says_what_for) {
  EXPECT_EQ(exit_status_without_threads([] {
              try {
                start_thread("is tested", [] {}).join();
              } catch (const Error& error) {
                const std::string text = error.what();
                const bool right = error.code() == ErrorCode::memory && !masked(SIGINT) &&
                                   text.find("start a thread that is tested: ") == 0;
                return right ? 0 : 1;
              }
              return 2;
            }),
            0);
}

TEST(Thread, that_cannot_be_had_leaves_the_work_to_those_that_are_there) {
  EXPECT_EQ(exit_status_without_threads([] {
              size_t done = 0;
              parallel_for(100, 4, [&](size_t) { ++done; });
              return done == 100 ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace inrush
