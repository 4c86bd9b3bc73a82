#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/stores/remote.h"

namespace inrush {
namespace {

class PlaceList final : public Store {
 public:
  PlaceList(std::vector<Place> places, const std::vector<std::string>& uris)
      : places_(std::move(places)) {
    std::set<std::string> given;
    for (size_t i = 0; i < places_.size(); ++i) {
      std::string name = places_[i].store->uri();
      if (places_[i].entry.empty()) {
        throw Error(ErrorCode::usage,
                    fmt::format("open {}: a folder among several files; open it by itself", name));
      }
      if (!given.insert(uris[i]).second) {
        throw Error(ErrorCode::usage, fmt::format("open {}: the file was given twice", name));
      }
      // What is not shown of a URI, such as its query, may make it another file.
      while (numbers_.contains(name)) name += fmt::format(" ({})", i + 1);
      numbers_.emplace(std::move(name), i);
    }
  }

  [[nodiscard]] std::string uri() const override {
    return fmt::format("{} and {} more", numbers_.begin()->first, numbers_.size() - 1);
  }

  std::vector<std::string> list() override {
    std::vector<std::string> names;
    for (const auto& [name, number] : numbers_) names.push_back(name);
    return names;
  }

  Blob open(const std::string& name) override {
    const auto found = numbers_.find(name);
    if (found == numbers_.end()) {
      throw Error(ErrorCode::source, fmt::format("open {}: not among the {} files given",
                                                 quoted(name), numbers_.size()));
    }
    Place& place = places_[found->second];
    Blob blob = place.store->open(place.entry);
    blob.name = name;
    const std::lock_guard lock(mutex_);
    owners_[blob.name] = found->second;
    return blob;
  }

  Identity identity(const Blob& blob) override { return owner(blob).identity(blob); }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    owner(blob).read(blob, offset, target);
  }

 private:
  Store& owner(const Blob& blob) {
    const std::lock_guard lock(mutex_);
    return *places_[owners_.at(blob.name)].store;
  }

  std::vector<Place> places_;
  std::map<std::string, size_t> numbers_;  // by name
  std::mutex mutex_;
  std::map<std::string, size_t> owners_;  // by the names of blobs
};

}  // namespace

std::unique_ptr<Store> make_place_list(std::vector<Place> places,
                                       const std::vector<std::string>& uris) {
  if (places.empty()) throw Error(ErrorCode::usage, "open: no files were given");
  return std::make_unique<PlaceList>(std::move(places), uris);
}

}  // namespace inrush
