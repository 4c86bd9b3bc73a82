// One page of what an object store lists, as S3 (and GCS) and Azure write it. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace inrush {

struct ListPage {
  std::vector<std::string> names;  // relative to the prefix, no folders
  std::string next;                // asks for the page after this one; empty: it is the last
};

// ListObjectsV2 with encoding-type=url. Names that cannot be a file's ("..", ones with a slash or
// control characters) and keys of other prefixes are left out. Throws Error{data}.
ListPage parse_s3_page(std::string_view xml, const std::string& prefix);

// List Blobs of Azure.
ListPage parse_az_page(std::string_view xml, const std::string& prefix);

}  // namespace inrush
