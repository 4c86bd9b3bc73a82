// ~/.aws/config, ~/.s3cfg.
#include "inrush/base/ini.h"

#include "fuzz/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  const std::string_view text = text_of(data, size);
  for (const auto& [section, values] : parse_ini(text)) {
    require(text.find(section) != std::string_view::npos, "a section is in the text");
    for (const auto& [name, value] : values) {
      require(name.find_first_of("=\n") == std::string::npos, "a name ends at its sign");
      require(text.find(value) != std::string_view::npos, "a value is in the text");
    }
  }
  return 0;
}
