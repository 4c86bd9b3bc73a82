// What lies beside its place while it is written:
//
//   .NAME.<16 hex digits>.inrush-partial    a file
//   .<16 hex digits>.inrush-partial/        a folder of files
//
// Whoever writes it holds a lock on it (flock), so that what nobody holds is known to be left by
// one who was killed. Any thread; names are never used twice.
#pragma once

#include <string>

namespace inrush {

constexpr int kMostPartialNames = 16;  // to try, before it is an error

// Of a file called `name`; of a folder if that is empty. Throws Error{source}.
std::string partial_name(const std::string& name);

// Locks what was just made under such a name, for as long as `fd` and its copies are open. False
// if it was taken away in between: make another.
bool hold_partial(int fd);

// Removes from `folder` those of `name` (of folders, if empty) that nobody holds. Only where locks
// are of all who may write there: not on filesystems that other machines share.
void remove_stale_partials(int folder, const std::string& name) noexcept;

}  // namespace inrush
