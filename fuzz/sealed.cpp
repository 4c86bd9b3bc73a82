// A sealed file: the input is its first bytes, behind which are 4096.
#include "inrush/formats/sealed.h"
#include "fuzz/any_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  check_file("x.sealed", data, size);
  MemoryStore store({{"x.sealed", std::string(text_of(data, size))}}, 4096);
  try {
    const Blob blob = store.open("x.sealed");
    const SealedFile file = read_sealed_file(store, blob);
    require(file.covered.size() == file.head.data_start(), "all before the data is covered");
    require(file.codes.size() == file.head.chunks, "each chunk has a code");
    require(file.first_chunk.size() == file.header.tensors.size(), "each tensor has chunks");
    require(file.head.encode().size() == kSealedHeadSize, "a head can be written again");
  } catch (const Error& error) {
    require(error.message().find("x.sealed") != std::string::npos, "errors name the file");
  }
  return 0;
}
