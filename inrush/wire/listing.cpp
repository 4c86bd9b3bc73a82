#include "inrush/wire/listing.h"

#include <algorithm>

#include "inrush/core/error.h"
#include "inrush/wire/response.h"
#include "inrush/wire/url.h"

namespace inrush {
namespace {

bool is_file_name(std::string_view name) {
  if (name.empty() || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(),
                      [](unsigned char c) { return c == '/' || c < ' ' || c == 0x7f; });
}

// Calls visit(text) for the text of each <name> element, which is not nested in its like.
template <typename Visit>
void each_element(std::string_view xml, const std::string& name, Visit visit) {
  const std::string open = "<" + name + ">";
  const std::string close = "</" + name + ">";
  for (size_t at = xml.find(open); at != std::string_view::npos; at = xml.find(open, at)) {
    const size_t end = xml.find(close, at);
    if (end == std::string_view::npos) throw Error(ErrorCode::data, "the listing is cut short");
    visit(xml.substr(at + open.size(), end - at - open.size()));
    at = end + close.size();
  }
}

void add(ListPage& page, const std::string& key, const std::string& prefix) {
  if (!key.starts_with(prefix)) return;
  std::string name = key.substr(prefix.size());
  if (is_file_name(name)) page.names.push_back(std::move(name));
}

}  // namespace

ListPage parse_s3_page(std::string_view xml, const std::string& prefix) {
  if (xml.find("<ListBucketResult") == std::string_view::npos) {
    throw Error(ErrorCode::data, "the answer is no listing of a bucket");
  }
  ListPage page;
  const bool encoded = xml_text(xml, "EncodingType") == "url";
  each_element(xml, "Contents", [&](std::string_view one) {
    std::string key = xml_text(one, "Key");
    if (encoded) {
      std::replace(key.begin(), key.end(), '+', ' ');
      key = percent_decoded(key);
    }
    add(page, key, prefix);
  });
  if (xml_text(xml, "IsTruncated") == "true") {
    page.next = xml_text(xml, "NextContinuationToken");
    if (page.next.empty()) {
      throw Error(ErrorCode::data, "the listing goes on, and does not say where");
    }
  }
  return page;
}

ListPage parse_az_page(std::string_view xml, const std::string& prefix) {
  if (xml.find("<EnumerationResults") == std::string_view::npos) {
    throw Error(ErrorCode::data, "the answer is no listing of a container");
  }
  ListPage page;
  each_element(xml, "Blob",
               [&](std::string_view one) { add(page, xml_text(one, "Name"), prefix); });
  page.next = xml_text(xml, "NextMarker");
  return page;
}

}  // namespace inrush
