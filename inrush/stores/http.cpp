// HTTP(S). A server has no listing that all agree on, so a folder is known by the files that
// checkpoints mostly consist of.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "inrush/base/base64.h"
#include "inrush/base/text.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/net/bearer.h"
#include "inrush/net/object.h"
#include "inrush/stores/opened.h"
#include "inrush/stores/remote.h"

namespace inrush {
namespace {

constexpr std::array kUsualFiles{"model.safetensors.index.json", "model.safetensors",
                                 "pytorch_model.bin.index.json", "pytorch_model.bin",
                                 "model.tensors"};

constexpr const char* kKnownHttp =
    "allow_invalid_certificates, ca_file, ca_folder, connect_timeout, connections, headers, hedge, "
    "proxy, timeout, whole";

class BasicSigner final : public Signer {
 public:
  explicit BasicSigner(const std::string& user) : line_("Basic " + base64(percent_decoded(user))) {}

  void sign(HttpRequest& request) const override {
    request.headers.emplace_back("Authorization", line_);
  }

 private:
  std::string line_;
};

class HttpFolder final : public Store {
 public:
  // `query` belongs to `entry` alone: it mostly is a signature.
  HttpFolder(std::shared_ptr<const Client> client, Url folder, std::string entry, std::string query)
      : client_(std::move(client)),
        folder_(std::move(folder)),
        entry_(std::move(entry)),
        query_(std::move(query)) {}

  [[nodiscard]] std::string uri() const override { return shown_url(url_of(entry_)); }

  [[nodiscard]] bool lists() const override { return false; }

  std::vector<std::string> list() override {
    std::vector<std::string> names;
    std::string refusal;  // some servers refuse what is not there, too
    for (const char* name : kUsualFiles) {
      const ResponseHead head = look_for_object(*client_, url_of(name));
      if (head.status < 400) names.emplace_back(name);
      if (head.status == 403) refusal = describe_refusal(head, {}) + ", and ";
    }
    if (names.empty()) {
      throw Error(ErrorCode::source,
                  fmt::format("open {}: {}none of the usual files is there ({}), and an HTTP "
                              "server cannot be asked for others: open a file by its URL",
                              uri(), refusal, fmt::join(kUsualFiles, ", ")));
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  Blob open(const std::string& name) override {
    const Url url = url_of(name);
    return opened_.get(name, [&] { return open_object(client_, {url, shown_url(url)}); });
  }

  Identity identity(const Blob& blob) override { return identity_of_object(blob); }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    read_object(blob, offset, target);
  }

 private:
  [[nodiscard]] Url url_of(const std::string& name) const {
    Url url = folder_;
    if (name == entry_) {
      url.path += name;
      url.query = query_;
      return url;
    }
    if (name.empty() || name.front() == '/' || has_part(name, "..") || has_part(name, ".")) {
      throw Error(ErrorCode::data, fmt::format("open {} in {}: the name leads out of the folder",
                                               quoted(name), shown_url(folder_)));
    }
    url.path += percent_encoded(name, true);
    return url;
  }

  std::shared_ptr<const Client> client_;
  Url folder_;         // its path ends with a slash
  std::string entry_;  // as written in the URI, encoded; empty: the folder was named
  std::string query_;
  OpenedBlobs opened_;
};

std::shared_ptr<const Signer> signer_for(const Url& url, const StorageOptions& options) {
  if (!url.user.empty()) return std::make_shared<BasicSigner>(url.user);
  if (auto box = options.credentials_of(url.scheme)) return std::make_shared<BearerSigner>(box);
  return nullptr;
}

}  // namespace

Place find_http(const std::string& uri, const StorageOptions& options) {
  Url url;
  try {
    url = parse_url(uri);
  } catch (const Error& error) {
    const std::string scheme = uri.substr(0, uri.find(':'));
    throw Error(ErrorCode::usage, fmt::format("open {}://...: {}", scheme, error.message()));
  }
  std::map<std::string, std::string> words = options.words;
  auto settled = client_options(words);
  check_all_known(words, shown_url(url), kKnownHttp);
  auto client = std::make_shared<const Client>(std::move(settled), signer_for(url, options));
  const size_t slash = url.path.rfind('/') + 1;
  const std::string entry = url.path.substr(slash);
  Url folder = url;
  folder.user.clear();
  folder.query.clear();
  folder.path.resize(slash);
  auto store = std::make_unique<HttpFolder>(std::move(client), std::move(folder), entry, url.query);
  return {std::move(store), entry};
}

}  // namespace inrush
