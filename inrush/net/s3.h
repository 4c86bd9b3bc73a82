// An S3 bucket, or a GCS one by its XML API: where it is, who asks, and what is asked for. Made
// from the words of storage options, the environment and the files of AWS's tools and s3cmd.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "inrush/net/client.h"

namespace inrush {

struct S3Bucket {
  std::string shown;  // "s3://bucket/"
  std::shared_ptr<const Client> client;
  Url base;                                // of the bucket; its path ends with a slash
  std::string query;                       // "versionId=..." of the object named
  std::shared_ptr<class S3Signer> signer;  // null: nobody signs
  bool named_endpoint = false;             // not AWS's own
  std::string bucket;
};

// `scheme`: "s3" or "gs". Throws Error{usage} for options that make no sense, Error{source} where
// no credentials are found and none were waived with anon=true.
S3Bucket settle_s3(const std::string& scheme, const std::string& bucket,
                   const StorageOptions& options);

// Asks which region the bucket is in. True if it is another than was thought, and `base` is set.
bool relocate_s3(const S3Bucket& bucket, Url& base);

}  // namespace inrush
