#include "inrush/file.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/parallel.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/net/object.h"
#include "inrush/stores/stores.h"

namespace inrush {
namespace {

constexpr uint64_t kPart = 4 * kMiB;  // bytes of a request, where there are several
constexpr size_t kWidth = 8;          // requests at once

}  // namespace

struct File::State {
  std::unique_ptr<Store> store;
  Blob blob;
};

File File::open(const std::string& uri, const StorageOptions& options) {
  Place place = find_place(uri, options);
  if (place.entry.empty()) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: a folder, and no file", quoted(place.store->uri())));
  }
  Blob blob = place.store->open(place.entry);
  return File(std::make_shared<State>(State{std::move(place.store), std::move(blob)}));
}

const std::string& File::name() const { return state_->blob.name; }

uint64_t File::size() const { return state_->blob.size; }

int File::fd() const { return state_->blob.fd; }

std::map<std::string, std::string> File::headers() const {
  const Blob& blob = state_->blob;
  if (blob.engine != "http") return {};
  return object_of(blob).said;
}

void File::read(uint64_t offset, std::span<std::byte> target) const {
  Store& store = *state_->store;
  const Blob& blob = state_->blob;
  const uint64_t part = blob.fd >= 0 ? std::max<uint64_t>(target.size(), 1) : kPart;
  parallel_for((target.size() + part - 1) / part, kWidth, [&](size_t i) {
    const uint64_t begin = i * part;
    const uint64_t size = std::min<uint64_t>(part, target.size() - begin);
    store.read(blob, offset + begin, target.subspan(begin, size));
  });
  if (store.identity(blob) != blob.identity) {
    throw Error(ErrorCode::data,
                fmt::format("read {} [{}, +{}): the content changed while it was being read",
                            blob.name, offset, target.size()));
  }
}

}  // namespace inrush
