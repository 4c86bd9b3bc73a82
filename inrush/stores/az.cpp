// az://container/blob of Azure Blob Storage, by shared access signature or bearer token. Saved are
// block blobs: https://learn.microsoft.com/rest/api/storageservices/put-block-list
#include <fmt/format.h>

#include <utility>

#include "inrush/base/base64.h"
#include "inrush/base/environment.h"
#include "inrush/core/error.h"
#include "inrush/net/upload.h"
#include "inrush/stores/bucket.h"
#include "inrush/stores/remote.h"

namespace inrush {
namespace {

constexpr const char* kVersion = "2021-08-06";  // of the protocol
constexpr const char* kKnownAz = "account, anon, endpoint, sas, token, and those of http";

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

struct Container {
  std::string shown;  // "az://container/"
  std::shared_ptr<const Client> client;
  Url base;  // its path ends with a slash
};

Container settle(const BucketUri& parts, const StorageOptions& options, const char* verb) {
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
                fmt::format("{} {}{}: which account? Set AZURE_STORAGE_ACCOUNT, or give the "
                            "storage option account or endpoint",
                            verb, shown, parts.key));
  }
  if (endpoint.empty()) endpoint = fmt::format("https://{}.blob.core.windows.net", account);
  std::shared_ptr<const CredentialBox> box = options.credentials_of("az");
  if (!token.empty()) {
    auto own = std::make_shared<CredentialBox>();
    own->put({"", "", token, 0});
    box = own;
  }
  if (sas.empty() && !box && anon != "true" && anon != "True") {
    throw Error(ErrorCode::source,
                fmt::format("{} {}{}: no credentials: set AZURE_STORAGE_SAS_TOKEN, give the "
                            "storage option sas or token, or anon=true for a public container",
                            verb, shown, parts.key));
  }
  Url base = parse_url(endpoint);
  base.user.clear();
  base.query.clear();
  if (base.path.back() != '/') base.path += '/';
  base.path += parts.bucket + "/";
  ClientOptions settled = client_options(words);
  check_all_known(words, shown, kKnownAz);
  auto client = std::make_shared<const Client>(std::move(settled),
                                               std::make_shared<AzSigner>(sas, std::move(box)));
  return {shown, std::move(client), base};
}

// Blocks that are not committed are seen by nobody, and go by themselves after a week.
class AzUpload final : public Upload {
 public:
  AzUpload(Container container, const std::string& key)
      : client_(std::move(container.client)),
        what_(fmt::format("save {}{}", container.shown, key)),
        url_(std::move(container.base)) {
    url_.path += percent_encoded(key, true);
  }

  void whole(std::string_view body) override {
    HttpRequest request = put("", body);
    request.headers.emplace_back("x-ms-blob-type", "BlockBlob");
    send(request);
  }

  void begin() override {}

  std::string part(size_t number, std::string_view body) override {
    std::string id = base64(fmt::format("{:08}", number));  // all of one length
    send(put("comp=block&blockid=" + percent_encoded(id, false), body));
    return id;
  }

  void complete(const std::map<size_t, std::string>& parts) override {
    std::string body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>";
    for (const auto& [number, id] : parts) body += fmt::format("<Uncommitted>{}</Uncommitted>", id);
    body += "</BlockList>";
    send(put("comp=blocklist", body));
  }

  void discard() override {}

 private:
  [[nodiscard]] HttpRequest put(const std::string& query, std::string_view body) const {
    HttpRequest request;
    request.method = "PUT";
    request.url = url_;
    request.url.query = query;
    request.body = body;
    return request;
  }

  void send(const HttpRequest& request) const {
    client_->ask(request, {.what = what_, .welcome = {201}});
  }

  std::shared_ptr<const Client> client_;
  std::string what_;
  Url url_;
};

}  // namespace

Place find_az(const std::string& uri, const StorageOptions& options) {
  const BucketUri parts = split_bucket_uri(uri);
  Container found = settle(parts, options, "open");
  return place_in({found.shown, found.client, found.base, "", list_blobs, parse_az_page},
                  parts.key);
}

std::unique_ptr<Writer> write_az(const std::string& uri, const StorageOptions& options) {
  const BucketUri parts = split_bucket_uri(uri);
  if (parts.key.empty() || parts.key.back() == '/') {
    throw Error(ErrorCode::usage, fmt::format("save {}: no name of a blob", uri));
  }
  const UploadLimits limits{.most_parts = 50'000, .largest = 190ULL << 40};
  return make_upload_writer(
      uri, std::make_unique<AzUpload>(settle(parts, options, "save"), parts.key), limits);
}

void remove_az(const std::string& uri, const StorageOptions& options) {
  const BucketUri parts = split_bucket_uri(uri);
  const Container found = settle(parts, options, "remove");
  HttpRequest request;
  request.method = "DELETE";
  request.url = found.base;
  request.url.path += percent_encoded(parts.key, true);
  found.client->ask(request, {.what = "remove " + uri, .welcome = {200, 202, 404}});
}

}  // namespace inrush
