// What the stores of local files share: opening a regular file for reading, and its identity.
// Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "inrush/base/fd.h"
#include "inrush/core/blob.h"

namespace inrush {

// Opens `path`, relative to the folder `at` (AT_FDCWD: to the working folder), as a Blob called
// `name`. Follows symbolic links. Never waits on a FIFO or a device: those, and whatever else is
// no regular file, are an Error{source}.
Blob open_local_file(int at, const std::string& path, const std::string& name);

// Reads exactly target.size() bytes, for a Format. A large file's that are not in the page cache
// yet are left out of it. Throws as read_fully().
void read_local_file(const Blob& blob, uint64_t offset, std::span<std::byte> target);

// The identity of the open file as of now. Throws Error{source}.
Identity identity_of(int fd, const std::string& name);

// That of a blob, which is as it was opened where only its mode, owner, links or name changed.
// Not where it was deleted or another took its place: whoever did so means the checkpoint.
Identity identity_now(const Blob& blob);

// Why a file or folder could not be opened, in words that say what to do about it.
Error open_error(const std::string& name, int error_number);

}  // namespace inrush
