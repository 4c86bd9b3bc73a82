// Writes one object of a remote place: small ones in one request, others in parts, several of them
// on their way at a time. Nothing is seen under the name before finish().
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "inrush/core/writer.h"
#include "inrush/net/s3.h"

namespace inrush {

// How a kind of store takes an object. Its calls throw Error; only part() may run on several
// threads at once.
class Upload {
 public:
  virtual ~Upload() = default;

  // The object in one request.
  virtual void whole(std::string_view body) = 0;

  virtual void begin() = 0;

  // Returns what complete() must say of this part. Parts are numbered from 1.
  virtual std::string part(size_t number, std::string_view body) = 0;

  virtual void complete(const std::map<size_t, std::string>& parts) = 0;

  // Parts that are left cost their owner money, and are seen by nobody else.
  virtual void discard() = 0;
};

struct UploadLimits {
  uint64_t most_parts = 10'000;
  uint64_t largest = 5ULL << 40;  // bytes of an object
};

// `name` as errors have it: "s3://bucket/key".
std::unique_ptr<Writer> make_upload_writer(const std::string& name, std::unique_ptr<Upload> upload,
                                           const UploadLimits& limits);

// Of an S3 bucket, or a GCS one.
std::unique_ptr<Writer> make_s3_writer(S3Bucket bucket, const std::string& key);

// Removes the object, if it is there. Throws Error.
void remove_s3_object(const S3Bucket& bucket, const std::string& key);

}  // namespace inrush
