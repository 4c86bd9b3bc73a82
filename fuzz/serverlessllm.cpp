// tensor_index.json beside two data files of 100 and 60 bytes.
#include "fuzz/any_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  MemoryStore store({{"tensor.data_0", std::string(100, 'a')},
                     {"tensor.data_1", std::string(60, 'b')},
                     {"tensor_index.json", std::string(text_of(data, size))}});
  try {
    check_index(read_index(store));
  } catch (const Error& error) {
    require(error.message().find("tensor_index.json") != std::string::npos, "errors name the file");
  }
  return 0;
}
