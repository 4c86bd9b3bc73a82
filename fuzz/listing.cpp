// A page of what an object store lists. The input is 's' (S3) or 'a' (Azure), a prefix, NUL, XML.
#include "inrush/wire/listing.h"

#include "fuzz/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  const std::string_view text = text_of(data, size);
  if (text.empty()) return 0;
  const std::string prefix(text.substr(1, text.find('\0') - 1));
  const std::string_view xml = text.substr(std::min(prefix.size() + 2, text.size()));
  try {
    const ListPage page = text[0] == 's' ? parse_s3_page(xml, prefix) : parse_az_page(xml, prefix);
    for (const std::string& name : page.names) {
      require(!name.empty() && name != "." && name != "..", "a name is one");
      require(name.find('/') == std::string::npos, "and leads nowhere else");
      for (const unsigned char c : name) require(c >= ' ' && c != 0x7f, "it can be shown");
    }
  } catch (const Error& error) {
    require(error.code() == ErrorCode::data || error.code() == ErrorCode::usage, "bad input");
  }
  return 0;
}
