// s3:// and gs://, which speak the same XML.
#include <fmt/format.h>

#include "inrush/core/error.h"
#include "inrush/net/s3.h"
#include "inrush/net/upload.h"
#include "inrush/stores/bucket.h"
#include "inrush/stores/remote.h"

namespace inrush {
namespace {

HttpRequest list_objects(const Url& base, const std::string& prefix, const std::string& next) {
  HttpRequest request;
  request.url = base;
  request.url.query =
      fmt::format("{}delimiter=%2F&encoding-type=url&list-type=2&prefix={}",
                  next.empty() ? "" : "continuation-token=" + percent_encoded(next, false) + "&",
                  percent_encoded(prefix, false));
  return request;
}

S3Bucket settle(const std::string& scheme, const BucketUri& parts, const StorageOptions& options) {
  try {
    StorageOptions settled = options;
    if (!parts.version.empty()) settled.words["version_id"] = parts.version;
    return settle_s3(scheme, parts.bucket, settled);
  } catch (const Error& error) {
    const std::string text = error.message();
    if (text.starts_with("open ")) throw;
    throw Error(error.code(),
                fmt::format("open {}://{}/{}: {}", scheme, parts.bucket, parts.key, text));
  }
}

std::unique_ptr<Writer> write(const std::string& scheme, const std::string& uri,
                              const StorageOptions& options) {
  const BucketUri parts = split_bucket_uri(uri);
  if (parts.key.empty() || parts.key.back() == '/') {
    throw Error(ErrorCode::usage, fmt::format("save {}: no name of an object", uri));
  }
  S3Bucket bucket = settle(scheme, parts, options);
  if (!bucket.query.empty()) {
    throw Error(ErrorCode::usage,
                fmt::format("save {}{}: a version is named, and what is saved becomes a new one",
                            bucket.shown, parts.key));
  }
  return make_s3_writer(std::move(bucket), parts.key);
}

void remove(const std::string& scheme, const std::string& uri, const StorageOptions& options) {
  const BucketUri parts = split_bucket_uri(uri);
  remove_s3_object(settle(scheme, parts, options), parts.key);
}

Place find(const std::string& scheme, const std::string& uri, const StorageOptions& options) {
  const BucketUri parts = split_bucket_uri(uri);
  const S3Bucket s3 = settle(scheme, parts, options);
  Bucket bucket{s3.shown, s3.client, s3.base, s3.query, list_objects, parse_s3_page};
  bucket.asks_sums = scheme == "s3";
  bucket.relocate = [s3](Url& base) { return relocate_s3(s3, base); };
  return place_in(std::move(bucket), parts.key);
}

}  // namespace

Place find_s3(const std::string& uri, const StorageOptions& options) {
  return find("s3", uri, options);
}

Place find_gs(const std::string& uri, const StorageOptions& options) {
  return find("gs", uri, options);
}

std::unique_ptr<Writer> write_s3(const std::string& uri, const StorageOptions& options) {
  return write("s3", uri, options);
}

std::unique_ptr<Writer> write_gs(const std::string& uri, const StorageOptions& options) {
  return write("gs", uri, options);
}

void remove_s3(const std::string& uri, const StorageOptions& options) {
  remove("s3", uri, options);
}

void remove_gs(const std::string& uri, const StorageOptions& options) {
  remove("gs", uri, options);
}

}  // namespace inrush
