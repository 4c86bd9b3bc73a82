// A .tensors file without the zeros of its index: the input is the head and the lines, behind which
// are 512 bytes; then every record that the index names.
#include "inrush/formats/tensorizer.h"
#include "fuzz/any_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  check_file("x.tensors", data, size);
  MemoryStore store({{"x.tensors", std::string(text_of(data, size))}}, 512);
  try {
    const Blob blob = store.open("x.tensors");
    const TensorsFile file = read_tensors_file(store, blob);
    for (const auto& entry : file.entries) {
      const TensorsRecord record = read_tensors_record(store, blob, file, entry);
      require(record.hashed.size() <= blob.size, "what is hashed lies in the file");
      require(!record.cipher || record.cipher->codes.size() <= blob.size, "as do the codes");
    }
  } catch (const Error& error) {
    require(error.message().find("x.tensors") != std::string::npos, "errors name the file");
  }
  return 0;
}
