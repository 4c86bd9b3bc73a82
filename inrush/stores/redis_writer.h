// A Writer of a file under a Redis key, in the layout that tensorizer reads: see wire/redis.h.
#pragma once

#include <memory>
#include <string>

#include "inrush/core/storage.h"
#include "inrush/core/writer.h"

namespace inrush {

// Parts go under a name of their own, which expires if nobody finishes it; finish() renames them in
// one transaction, which also removes what was under the key before. Throws Error.
std::unique_ptr<Writer> write_redis(const std::string& uri, const StorageOptions& options = {});

// Removes the keys of a file, if there are any. Throws Error.
void remove_redis(const std::string& uri, const StorageOptions& options);

}  // namespace inrush
