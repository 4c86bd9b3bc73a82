// az://container/blob of Azure Blob Storage, by shared access signature or bearer token.
#include <fmt/format.h>

#include "inrush/base/environment.h"
#include "inrush/core/error.h"
#include "inrush/stores/bucket.h"
#include "inrush/stores/remote.h"

namespace inrush {
namespace {

constexpr const char* kVersion = "2021-08-06";  // of the protocol
constexpr const char* kKnown = "account, anon, endpoint, sas, token, and those of http";

class AzSigner final : public Signer {
 public:
  AzSigner(std::string sas, std::shared_ptr<const CredentialBox> box)
      : sas_(std::move(sas)), box_(std::move(box)) {
    if (sas_.starts_with('?')) sas_.erase(0, 1);
  }

  void sign(HttpRequest& request) const override {
    request.headers.emplace_back("x-ms-version", kVersion);
    if (!sas_.empty()) {
      request.url.query += (request.url.query.empty() ? "" : "&") + sas_;
    } else if (box_ && !box_->get().token.empty()) {
      request.headers.emplace_back("Authorization", "Bearer " + box_->get().token);
    }
  }

 private:
  std::string sas_;
  std::shared_ptr<const CredentialBox> box_;
};

HttpRequest list_blobs(const Url& base, const std::string& prefix, const std::string& next) {
  HttpRequest request;
  request.url = base;
  if (request.url.path.size() > 1) request.url.path.pop_back();
  request.url.query = fmt::format("restype=container&comp=list&delimiter=%2F&prefix={}{}",
                                  percent_encoded(prefix, false),
                                  next.empty() ? "" : "&marker=" + percent_encoded(next, false));
  return request;
}

std::string either(const std::string& first, const std::string& second) {
  return first.empty() ? second : first;
}

}  // namespace

Place find_az(const std::string& uri, const StorageOptions& options) {
  const BucketUri parts = split_bucket_uri(uri);
  const std::string shown = fmt::format("az://{}/", parts.bucket);
  std::map<std::string, std::string> words = options.words;
  const std::string account =
      either(take_word(words, "account"), either(store_variable("AZURE_STORAGE_ACCOUNT"),
                                                 store_variable("AZURE_STORAGE_ACCOUNT_NAME")));
  std::string endpoint = take_word(words, "endpoint");
  const std::string sas =
      either(take_word(words, "sas"), store_variable("AZURE_STORAGE_SAS_TOKEN"));
  const std::string token = take_word(words, "token");
  const std::string anon = take_word(words, "anon");
  if (endpoint.empty() && account.empty()) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}{}: which account? Set AZURE_STORAGE_ACCOUNT, or give the "
                            "storage option account or endpoint",
                            shown, parts.key));
  }
  if (endpoint.empty()) endpoint = fmt::format("https://{}.blob.core.windows.net", account);
  std::shared_ptr<const CredentialBox> box = options.credentials;
  if (!token.empty()) {
    auto own = std::make_shared<CredentialBox>();
    own->put({"", "", token, 0});
    box = own;
  }
  if (sas.empty() && !box && anon != "true" && anon != "True") {
    throw Error(ErrorCode::source,
                fmt::format("open {}{}: no credentials: set AZURE_STORAGE_SAS_TOKEN, give the "
                            "storage option sas or token, or anon=true for a public container",
                            shown, parts.key));
  }
  Url base = parse_url(endpoint);
  base.user.clear();
  base.query.clear();
  if (base.path.back() != '/') base.path += '/';
  base.path += parts.bucket + "/";
  ClientOptions settled = client_options(words);
  check_all_known(words, shown, kKnown);
  auto client = std::make_shared<const Client>(std::move(settled),
                                               std::make_shared<AzSigner>(sas, std::move(box)));
  return place_in({shown, std::move(client), base, "", list_blobs, parse_az_page, {}}, parts.key);
}

}  // namespace inrush
