#include "inrush/net/s3.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <mutex>

#include "inrush/base/environment.h"
#include "inrush/core/error.h"
#include "inrush/net/s3_setting.h"
#include "inrush/wire/sigv4.h"

namespace inrush {

// Signs with the credentials of now, for the region that is known by now. Any thread.
class S3Signer final : public Signer {
 public:
  S3Signer(std::shared_ptr<const CredentialBox> box, std::string region, bool payer)
      : box_(std::move(box)), region_(std::move(region)), payer_(payer) {}

  void sign(HttpRequest& request) const override {
    if (payer_) request.headers.emplace_back("x-amz-request-payer", "requester");
    const Credentials credentials = box_->get();
    if (credentials.expires != 0 && credentials.expires < ::time(nullptr)) {
      throw Error(ErrorCode::source, "the credentials have expired, and nobody renewed them");
    }
    if (credentials.key_id.empty()) {
      request.headers.emplace_back("Authorization", "Bearer " + credentials.token);
      return;
    }
    sign_v4(request, credentials, {region(), "s3"}, ::time(nullptr));
  }

  [[nodiscard]] bool trusts(const Url& other) const override {
    return other.scheme == "https" && other.host.ends_with(".amazonaws.com") && trusts_aws;
  }

  [[nodiscard]] std::string region() const {
    const std::lock_guard lock(mutex_);
    return region_;
  }
  void move_to(std::string region) {
    const std::lock_guard lock(mutex_);
    region_ = std::move(region);
  }

  bool trusts_aws = false;  // the bucket is AWS's own

 private:
  std::shared_ptr<const CredentialBox> box_;
  mutable std::mutex mutex_;
  std::string region_;
  bool payer_;
};

namespace {

constexpr const char* kKnown =
    "addressing, anon, endpoint, key, profile, region, requester_pays, secret, token, version_id, "
    "and those of http";

// Buckets whose names are no host names are asked for by path.
bool fits_a_host(const std::string& bucket) {
  return std::all_of(bucket.begin(), bucket.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || std::isdigit(c) != 0 || c == '-';
  });
}

Url base_url(const std::string& endpoint, const std::string& bucket, bool by_host) {
  Url url = parse_url(endpoint);
  if (url.scheme != "http" && url.scheme != "https") {
    throw Error(ErrorCode::usage,
                fmt::format("endpoint {}: expected http:// or https://", shown_url(url)));
  }
  if (url.path.back() != '/') url.path += '/';
  if (by_host) {
    url.host = bucket + "." + url.host;
  } else {
    url.path += bucket + "/";
  }
  url.user.clear();
  url.query.clear();
  return url;
}

std::string aws_endpoint(const std::string& region) {
  return fmt::format("https://s3.{}.amazonaws.com{}", region,
                     region.starts_with("cn-") ? ".cn" : "");
}

bool by_host(const std::string& addressing, const std::string& bucket, bool named_endpoint) {
  if (addressing == "path") return false;
  if (addressing == "virtual") return true;
  if (!addressing.empty() && addressing != "auto") {
    throw Error(ErrorCode::usage,
                fmt::format("addressing {}: expected auto, path or virtual", addressing));
  }
  return !named_endpoint && fits_a_host(bucket);
}

struct Words {
  std::map<std::string, std::string> rest;
  std::string profile, endpoint, region, addressing, version;
  Credentials credentials;
  bool anon = false;
  bool anon_if_none = false;  // unsigned where no credentials are found
  bool payer = false;

  explicit Words(const StorageOptions& options) : rest(options.words) {
    const auto take = [&](const char* name) { return take_word(rest, name); };
    profile = take("profile");
    endpoint = take("endpoint");
    region = take("region");
    addressing = take("addressing");
    version = take("version_id");
    const std::string key = take("key");
    const std::string secret = take("secret");
    const std::string token = take("token");
    if (key.empty() != secret.empty()) {
      throw Error(ErrorCode::usage, "storage options key and secret: both are needed");
    }
    credentials = {key, secret, token, 0};
    const std::string unsigned_requests = take("anon");
    anon = is_true(unsigned_requests);
    anon_if_none = unsigned_requests == "auto";
    payer = is_true(take("requester_pays"));
  }
};

// What signs; null: nothing does. What the caller says wins over what was found here.
std::shared_ptr<const CredentialBox> box_of(const Words& words, const StorageOptions& options,
                                            const S3Setting& here, bool is_gs) {
  if (words.anon) return nullptr;
  const auto given = options.credentials_of(is_gs ? "gs" : "s3");
  if (words.credentials.empty() && given) return given;
  auto box = std::make_shared<CredentialBox>();
  Credentials found = words.credentials.empty() ? here.credentials : words.credentials;
  if (found.empty() && is_gs) found.token = store_variable("GOOGLE_OAUTH_ACCESS_TOKEN");
  if (found.empty() && words.anon_if_none) return nullptr;
  if (found.empty()) {
    throw Error(ErrorCode::source,
                is_gs ? "no credentials: set GOOGLE_OAUTH_ACCESS_TOKEN, install google-auth, give "
                        "key and secret of HMAC, or anon=true for a public bucket"
                      : "no credentials in the environment, ~/.aws and ~/.s3cfg: set them, install "
                        "botocore for other kinds, or give anon=true for a public bucket" +
                            here.unreadable);
  }
  box->put(std::move(found));
  return box;
}

}  // namespace

S3Bucket settle_s3(const std::string& scheme, const std::string& bucket,
                   const StorageOptions& options) {
  const bool is_gs = scheme == "gs";
  Words words(options);
  const bool has_keys = !words.credentials.empty() || words.anon || options.credentials_of("s3");
  const S3Setting here = is_gs ? S3Setting{} : find_s3_setting(words.profile, !has_keys);
  const std::string region = first_of({words.region, is_gs ? "auto" : here.region});
  const std::string named =
      first_of({words.endpoint, is_gs ? store_variable("STORAGE_EMULATOR_HOST") : here.endpoint});
  const bool asked_by_host = here.by_host && words.endpoint.empty();
  const bool virtual_host =
      !is_gs && by_host(words.addressing, bucket, !named.empty() && !asked_by_host);
  S3Bucket settled;
  settled.bucket = bucket;
  settled.shown = fmt::format("{}://{}/", scheme, bucket);
  settled.named_endpoint = !named.empty() || is_gs;
  const std::string usual = is_gs ? "https://storage.googleapis.com" : aws_endpoint(region);
  settled.base = base_url(named.empty() ? usual : named, bucket, virtual_host);
  if (!words.version.empty()) {
    settled.query = fmt::format("{}={}", is_gs ? "generation" : "versionId",
                                percent_encoded(words.version, false));
  }
  if (const auto box = box_of(words, options, here, is_gs)) {
    settled.signer = std::make_shared<S3Signer>(box, region, words.payer);
    settled.signer->trusts_aws = !settled.named_endpoint;
  }
  ClientOptions client = client_options(words.rest);
  check_all_known(words.rest, settled.shown, kKnown);
  settled.client = std::make_shared<const Client>(std::move(client), settled.signer);
  return settled;
}

bool relocate_s3(const S3Bucket& bucket, Url& base) {
  HttpRequest request;
  request.method = "HEAD";
  request.url = base;
  std::string region;
  try {
    const Answer answer =
        bucket.client->ask(request, {.what = "ask for the region of " + bucket.shown,
                                     .welcome = {200, 301, 307, 400, 401, 403, 404}});
    region = answer.head.header("x-amz-bucket-region");
  } catch (const Error&) {
    return false;  // the first refusal says it better
  }
  const bool sane = !region.empty() && std::all_of(region.begin(), region.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
  if (!sane || (bucket.signer && bucket.signer->region() == region)) return false;
  if (bucket.signer) bucket.signer->move_to(region);
  if (!bucket.named_endpoint) {
    const bool by_name = base.host.starts_with(bucket.bucket + ".");
    const Url moved = base_url(aws_endpoint(region), bucket.bucket, by_name);
    if (!bucket.signer && moved.host == base.host) return false;
    base = moved;
  }
  return true;
}

}  // namespace inrush
