// AWS Signature Version 4: what S3 and compatible stores know a request's sender by. Pure.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
#pragma once

#include <cstdint>
#include <string>

#include "inrush/core/storage.h"
#include "inrush/wire/request.h"

namespace inrush {

struct SigningScope {
  std::string region;
  std::string service = "s3";
};

// Adds x-amz-date, x-amz-security-token, for S3 x-amz-content-sha256, and Authorization over all
// headers that are there. The URL must be encoded as it is to be sent. `now`: seconds since 1970.
void sign_v4(HttpRequest& request, const Credentials& credentials, const SigningScope& scope,
             int64_t now);

}  // namespace inrush
