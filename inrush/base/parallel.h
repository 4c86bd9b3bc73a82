// Many alike pieces of work on a few threads that live only as long as the call.
#pragma once

#include <cstddef>
#include <functional>

namespace inrush {

// Calls work(0) .. work(count - 1), on up to `threads` threads of which the caller's is one, and
// returns when all are done. After an exception no further piece is begun; the one with the lowest
// index is thrown, so the error is the same whatever the threads did.
void parallel_for(size_t count, size_t threads, const std::function<void(size_t)>& work);

}  // namespace inrush
