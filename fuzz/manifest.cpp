// A manifest that is accepted comes back from its own JSON, and equals itself.
#include "inrush/manifest.h"

#include "fuzz/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  try {
    const Manifest read = parse_manifest(text_of(data, size), "m");
    require(parse_manifest(to_json(read), "again") == read, "it comes back");
    require(compare(read, read).empty(), "it equals itself");
    compare(read, {});
  } catch (const Error& error) {
    require(error.message().find("manifest m ") == 0, "only the input is refused, by its name");
  }
  return 0;
}
