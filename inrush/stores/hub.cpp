// Repositories of the Hugging Face Hub. huggingface_hub, which is Python, has resolved them to a
// commit and its files; what is left is HTTP, and that package's cache beside it.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "inrush/base/cache_file.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/net/bearer.h"
#include "inrush/net/object.h"
#include "inrush/net/transfer.h"
#include "inrush/stores/cached.h"
#include "inrush/stores/opened.h"
#include "inrush/stores/remote.h"

namespace inrush {
namespace {

constexpr const char* kKnownHub =
    "ca_file, connect_timeout, connections, headers, hedge, proxy, "
    "timeout; and from Python cache, endpoint, token";

class HubStore final : public Store {
 public:
  HubStore(std::shared_ptr<const Client> client, HubPlace place,
           std::shared_ptr<CacheFolder> folder)
      : client_(std::move(client)),
        snapshot_(std::move(place.snapshot)),
        refusals_(std::move(place.refusals)),
        folder_(std::move(folder)) {}

  [[nodiscard]] std::string uri() const override {
    const std::string& name = snapshot_->entry;
    if (name.empty() && snapshot_->prefix.empty()) return snapshot_->shown;
    return shown(snapshot_->prefix + name);
  }

  std::vector<std::string> list() override {
    std::vector<std::string> names;
    for (const HubFile& file : snapshot_->files) {
      const std::string& prefix = snapshot_->prefix;
      if (!file.name.starts_with(prefix)) continue;
      const std::string name = file.name.substr(prefix.size());
      if (name.find('/') == std::string::npos) names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  Blob open(const std::string& name) override {
    return opened_.get(name, [&] { return first_look(find(snapshot_->prefix + name)); });
  }

  Identity identity(const Blob& blob) override { return object_of(blob).identity; }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    try {
      read_object(blob, offset, target);
    } catch (const NoParts&) {
      refusals_->add(blob.name.substr(snapshot_->shown.size() + 1));
      throw;
    }
  }

 private:
  [[nodiscard]] std::string shown(const std::string& name) const {
    return snapshot_->shown + "/" + name;
  }

  [[nodiscard]] const HubFile& find(const std::string& name) const {
    const auto& files = snapshot_->files;
    const auto found = std::find_if(files.begin(), files.end(),
                                    [&](const HubFile& file) { return file.name == name; });
    if (found != files.end()) return *found;
    if (snapshot_->offline.empty()) {
      throw Error(ErrorCode::source,
                  fmt::format("open {}: no such file in the repository at commit {}",
                              quoted(shown(name)), snapshot_->commit));
    }
    throw Error(ErrorCode::source,
                fmt::format("open {}: it is not in the cache {}, and {}", quoted(shown(name)),
                            snapshot_->folder, snapshot_->offline));
  }

  Blob first_look(const HubFile& file) {
    HomeContent content;
    content.name = shown(file.name);
    content.identity = Identity{};
    content.identity->size = file.size;
    content.identity->etag = file.etag;
    if (!file.url.empty()) content.url = parse_url(file.url);
    const Blob unseen = unseen_object(client_, content);
    const auto copy = CacheFile::open(folder_, unseen);
    if (file.size == 0 || (copy && copy->missing() == 0)) return unseen;
    if (file.url.empty()) {
      throw Error(ErrorCode::source, fmt::format("open {}: it is not in the cache, and {}",
                                                 content.name, snapshot_->offline));
    }
    try {
      return open_object(client_, content);
    } catch (const NoParts&) {
      refusals_->add(file.name);
      throw;
    }
  }

  std::shared_ptr<const Client> client_;
  std::shared_ptr<const HubSnapshot> snapshot_;
  std::shared_ptr<HubRefusals> refusals_;
  std::shared_ptr<CacheFolder> folder_;  // may be null
  OpenedBlobs opened_;
};

}  // namespace

Place find_hub(const std::string& uri, const StorageOptions& options) {
  const auto place = options.hub.find(uri);
  if (place == options.hub.end()) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: repositories of the Hugging Face Hub are resolved by "
                            "huggingface_hub: open them from Python or the command line",
                            quoted(uri)));
  }
  const HubSnapshot& snapshot = *place->second.snapshot;
  std::map<std::string, std::string> words = options.words;
  auto settled = client_options(words);
  check_all_known(words, snapshot.shown, kKnownHub);
  std::shared_ptr<const Signer> signer;
  if (snapshot.credentials) signer = std::make_shared<BearerSigner>(snapshot.credentials);
  auto client = std::make_shared<const Client>(std::move(settled), std::move(signer));
  auto folder = open_hub_folder(place->second.snapshot);
  auto store = std::make_unique<HubStore>(std::move(client), place->second, folder);
  return {keep_in(std::move(store), std::move(folder)), snapshot.entry};
}

}  // namespace inrush
