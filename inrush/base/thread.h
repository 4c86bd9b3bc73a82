// A thread of ours, named "inrush", with all signals masked: they are the application's, and an
// interrupted read would be ours to explain. Callable from any thread.
#pragma once

#include <functional>
#include <string_view>
#include <thread>

namespace inrush {

// Runs work() on a thread of its own. Where there is no thread to be had (a cgroup's pids.max,
// RLIMIT_NPROC), throws Error (memory), "start a thread that {what}: ...".
[[nodiscard]] std::thread start_thread(std::string_view what, std::function<void()> work);

// Whether the process has such threads, by their name; false where there is no /proc.
[[nodiscard]] bool threads_run();

}  // namespace inrush
