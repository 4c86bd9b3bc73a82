// Writes one object of an S3 bucket: small ones at once, others as a multipart upload, several
// parts on their way at a time. Nothing is seen under the key before finish().
#pragma once

#include <memory>
#include <string>

#include "inrush/core/writer.h"
#include "inrush/net/s3.h"

namespace inrush {

std::unique_ptr<Writer> make_s3_writer(S3Bucket bucket, const std::string& key);

}  // namespace inrush
