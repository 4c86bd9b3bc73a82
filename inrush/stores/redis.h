// A Store that is the keys of a Redis server: see wire/redis.h for how a file lies in them.
#pragma once

#include <memory>
#include <string>

#include "inrush/core/store.h"
#include "inrush/stores/stores.h"
#include "inrush/wire/redis.h"

namespace inrush {

// The server of a redis:// or rediss:// URI, and the file it names. A key that ends in "/" (or
// none) is a folder: the files whose keys begin with it.
Place find_redis(const std::string& uri, const StorageOptions& options = {});

// The place with what options say of it, which is ca_file at most: the login stands in the URI.
RedisPlace redis_place(const std::string& uri, const StorageOptions& options);

}  // namespace inrush
