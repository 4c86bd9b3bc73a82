// A Store of remote blobs that keeps what is read of them on this machine: see base/cache_file.h.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "inrush/base/cache_folder.h"
#include "inrush/core/engine.h"
#include "inrush/core/storage.h"
#include "inrush/core/store.h"

namespace inrush {

// `inner` itself where options.cache_dir is empty.
std::unique_ptr<Store> make_cached(std::unique_ptr<Store> inner, const StorageOptions& options);

// `inner` itself where there is no folder.
std::unique_ptr<Store> keep_in(std::unique_ptr<Store> inner, std::shared_ptr<CacheFolder> folder);

// Where all of these blobs, which are the store's, are here as a whole: they become local files.
// What little of them no load ever reads is fetched for that.
void use_whole_copies(Store& store, std::vector<Blob>& blobs);

// Waits until no load is at a copy of these blobs that must have a digest; false at the deadline.
// Throws Error{data} for one whose bytes were found to be other ones.
bool confirm_copies(std::span<const Blob> blobs, Deadline deadline);

}  // namespace inrush
