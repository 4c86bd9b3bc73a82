#include "inrush/checkpoint.h"

#include <utility>

#include "inrush/formats/formats.h"
#include "inrush/stores/stores.h"

namespace inrush {

struct Checkpoint::State {
  std::unique_ptr<Store> store;
  std::string uri;
  Index index;
};

Checkpoint Checkpoint::open(const std::string& uri) {
  Place place = find_place(uri);
  std::vector<std::string> entries;
  if (!place.entry.empty()) entries.push_back(place.entry);
  Index index = read_index(*place.store, entries);
  return Checkpoint(std::make_shared<State>(State{std::move(place.store), uri, std::move(index)}));
}

Checkpoint Checkpoint::open(const std::vector<std::string>& paths) {
  if (paths.size() == 1) return open(paths.front());
  // As files that were named, not as a listing in which some may be strays.
  return open(make_file_list(paths), paths);
}

Checkpoint Checkpoint::open(std::unique_ptr<Store> store, const std::vector<std::string>& entries) {
  Index index = read_index(*store, entries);
  std::string uri = store->uri();
  return Checkpoint(
      std::make_shared<State>(State{std::move(store), std::move(uri), std::move(index)}));
}

const Index& Checkpoint::index() const { return state_->index; }

Store& Checkpoint::store() const { return *state_->store; }

std::string Checkpoint::uri() const { return state_->uri; }

}  // namespace inrush
