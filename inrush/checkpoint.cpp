#include "inrush/checkpoint.h"

#include <algorithm>
#include <utility>

#include "inrush/formats/formats.h"
#include "inrush/stores/cached.h"
#include "inrush/stores/remote.h"
#include "inrush/stores/stores.h"

namespace inrush {

struct Checkpoint::State {
  std::unique_ptr<Store> store;
  std::string uri;
  Index index;
};

Checkpoint Checkpoint::open(const std::string& uri, const StorageOptions& options) {
  Place place = find_place(uri, options);
  std::vector<std::string> entries;
  if (!place.entry.empty()) entries.push_back(place.entry);
  Index index = read_index(*place.store, entries);
  use_whole_copies(*place.store, index.blobs);
  // The URI of a remote place may hold what nobody should see.
  const std::string shown = is_remote(uri) ? place.store->uri() : uri;
  return Checkpoint(
      std::make_shared<State>(State{std::move(place.store), shown, std::move(index)}));
}

Checkpoint Checkpoint::open(const std::vector<std::string>& paths, const StorageOptions& options) {
  if (paths.size() == 1) return open(paths.front(), options);
  if (std::any_of(paths.begin(), paths.end(), is_remote)) {
    std::vector<Place> places;
    for (const std::string& path : paths) places.push_back(find_place(path, options));
    auto store = make_place_list(std::move(places), paths);
    const std::vector<std::string> entries = store->list();
    return open(std::move(store), entries);
  }
  // As files that were named, not as a listing in which some may be strays.
  return open(make_file_list(paths), paths);
}

Checkpoint Checkpoint::open(std::unique_ptr<Store> store, const std::vector<std::string>& entries) {
  Index index = read_index(*store, entries);
  std::string uri = store->uri();
  return Checkpoint(
      std::make_shared<State>(State{std::move(store), std::move(uri), std::move(index)}));
}

bool Checkpoint::confirm(Deadline deadline) const {
  const bool here = confirm_copies(index().blobs, deadline);
  const std::span<const Checkpoint> others = mirrors();
  return std::all_of(others.begin(), others.end(),
                     [&](const Checkpoint& other) { return other.confirm(deadline); }) &&
         here;
}

const Index& Checkpoint::index() const { return state_->index; }

Store& Checkpoint::store() const { return *state_->store; }

std::string Checkpoint::uri() const { return state_->uri; }

}  // namespace inrush
