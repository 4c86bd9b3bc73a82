// A whole GGUF file.
#include "fuzz/any_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  inrush::fuzz::check_file("x.gguf", data, size);
  return 0;
}
