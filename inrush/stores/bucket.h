// A Store over one prefix of a bucket, a container or what else holds objects by key: what S3, GCS
// and Azure have in common. Threads as for any Store.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "inrush/net/client.h"
#include "inrush/stores/stores.h"
#include "inrush/wire/listing.h"

namespace inrush {

struct Bucket {
  std::string shown;  // "s3://bucket/"
  std::shared_ptr<const Client> client;
  Url base;           // of the bucket; its path ends with a slash
  std::string query;  // of the object named, such as "versionId=..."
  // The request for the page after `next`, and how to read the answer.
  std::function<HttpRequest(const Url& base, const std::string& prefix, const std::string& next)>
      list;
  ListPage (*parse)(std::string_view xml, const std::string& prefix) = nullptr;
  bool asks_sums = false;  // of what is opened: S3 says them only where it is asked
  // Where the bucket really is, after a refusal; false: nowhere else. May be empty.
  std::function<bool(Url& base)> relocate{};
};

// The place that `key` names: an object, "folder/" with its objects, or a pattern of names in one.
Place place_in(Bucket bucket, const std::string& key);

// "s3://bucket/key?versionId=..." in its parts; throws Error{usage} without a bucket, for a key
// that leads out of it, and for what else stands behind a question mark: it may be a secret.
struct BucketUri {
  std::string bucket;
  std::string key;
  std::string version;  // of the object; empty: the latest
};
BucketUri split_bucket_uri(const std::string& uri);

}  // namespace inrush
