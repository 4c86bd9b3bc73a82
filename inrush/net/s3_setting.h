// Who asks S3, and where, as this machine has it: AWS's variables, ~/.aws, s3cmd's ~/.s3cfg. Read
// anew for each place. Any thread.
#pragma once

#include <map>
#include <string>

#include "inrush/core/storage.h"

namespace inrush {

struct S3Setting {
  Credentials credentials;  // empty: there are none
  std::string region;
  std::string endpoint;    // a URL; empty: AWS
  bool by_host = false;    // whether the endpoint has a name for each bucket
  std::string unreadable;  // files that may not be read, each with its reason; mostly empty
};

// The setting of one profile of AWS's; "" for the one that AWS_PROFILE names, or "default". Keys,
// where `keys` says that the caller has none: of s3cmd's file they come with its host.
S3Setting find_s3_setting(const std::string& profile, bool keys);

// What s3cmd's file at this path says under [default]; nothing where it cannot be read.
std::map<std::string, std::string> read_s3cfg(const std::string& path);

// s3cmd's file in the home folder; empty where there is no such folder.
std::string s3cfg_path();

// The first that is not empty.
std::string first_of(std::initializer_list<std::string> values);

}  // namespace inrush
