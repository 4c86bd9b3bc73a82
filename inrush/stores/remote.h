// Stores of remote places, and one over several places of any kind. Rows of the table in stores.h.
#pragma once

#include <string>
#include <vector>

#include "inrush/stores/stores.h"

namespace inrush {

// http:// and https://: one file, or a folder, which cannot be listed but has the files that its
// index file names.
Place find_http(const std::string& uri, const StorageOptions& options);

// s3://bucket/key, gs://bucket/key, az://container/blob.
Place find_s3(const std::string& uri, const StorageOptions& options);
Place find_gs(const std::string& uri, const StorageOptions& options);
Place find_az(const std::string& uri, const StorageOptions& options);

// hf://org/name[@revision][/file], as options.hub has it resolved. Copies are kept in
// huggingface_hub's cache.
Place find_hub(const std::string& uri, const StorageOptions& options);

std::unique_ptr<Writer> write_s3(const std::string& uri, const StorageOptions& options);
std::unique_ptr<Writer> write_gs(const std::string& uri, const StorageOptions& options);
std::unique_ptr<Writer> write_az(const std::string& uri, const StorageOptions& options);

void remove_s3(const std::string& uri, const StorageOptions& options);
void remove_gs(const std::string& uri, const StorageOptions& options);
void remove_az(const std::string& uri, const StorageOptions& options);

// One store over several places, each of which is one entry of its store. Entries are called as
// their blobs are. `uris`: what the places were given as, which alone tells all of them apart.
std::unique_ptr<Store> make_place_list(std::vector<Place> places,
                                       const std::vector<std::string>& uris);

}  // namespace inrush
