#include "inrush/wire/listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "inrush/base/percent.h"
#include "inrush/core/error.h"
#include "inrush/wire/response.h"

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

// What ends early may have been cut between two entries.
void check_whole(std::string_view xml, const std::string& root, const char* what) {
  const size_t begin = xml.find("<" + root);
  if (begin == std::string_view::npos) {
    throw Error(ErrorCode::data, fmt::format("the answer is no listing of a {}", what));
  }
  const size_t end = xml.find('>', begin);
  const bool empty = end != std::string_view::npos && xml[end - 1] == '/';
  if (!empty && xml.rfind("</" + root + ">") == std::string_view::npos) {
    throw Error(ErrorCode::data, "the listing is cut short");
  }
}

std::string decoded_key(std::string key) {
  std::replace(key.begin(), key.end(), '+', ' ');
  std::optional<std::string> plain = unescaped(key);
  if (!plain) throw Error(ErrorCode::data, "a key that is not encoded as it should be");
  return std::move(*plain);
}

void add(ListPage& page, const std::string& key, const std::string& prefix) {
  if (!key.starts_with(prefix)) return;
  std::string name = key.substr(prefix.size());
  if (is_file_name(name)) page.names.push_back(std::move(name));
}

}  // namespace

ListPage parse_s3_page(std::string_view xml, const std::string& prefix) {
  check_whole(xml, "ListBucketResult", "bucket");
  ListPage page;
  const bool encoded = xml_text(xml, "EncodingType") == "url";
  each_element(xml, "Contents", [&](std::string_view one) {
    std::string key = xml_text(one, "Key");
    if (encoded) key = decoded_key(std::move(key));
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
  check_whole(xml, "EnumerationResults", "container");
  ListPage page;
  each_element(xml, "Blob",
               [&](std::string_view one) { add(page, xml_text(one, "Name"), prefix); });
  page.next = xml_text(xml, "NextMarker");
  return page;
}

}  // namespace inrush
