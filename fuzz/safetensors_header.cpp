// A whole safetensors file: 2 bytes say how many zeros lie behind the rest of the input, which is
// the file. What is accepted must be what the format promises, and JSON to another parser too.
#include <simdjson.h>

#include "fuzz/memory_store.h"
#include "inrush/formats/formats.h"

namespace inrush::fuzz {
namespace {

void check(const Index& index, uint64_t file_size, uint64_t data_start) {
  uint64_t end = data_start;
  for (const auto& tensor : index.tensors) {
    require(tensor.offset == end, "tensors lie one behind the other");
    end += tensor.size;
    unsigned __int128 bits = bits_of(tensor.dtype);
    for (const uint64_t length : tensor.shape) bits *= length;
    require(bits == static_cast<unsigned __int128>(tensor.size) * 8, "size is shape times dtype");
    require(index.find(tensor.name) == &tensor, "every tensor is found by its name");
  }
  require(end == file_size, "tensors fill the file");
  require(index.by_name.size() == index.tensors.size(), "as many names as tensors");
}

}  // namespace
}  // namespace inrush::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  if (size < 2) return 0;
  const uint64_t zeros = data[0] | data[1] << 8;
  const std::string file(text_of(data + 2, size - 2));
  MemoryStore store({{"x.safetensors", file}}, zeros);
  try {
    const Index index = read_index(store);
    if (index.format != "safetensors") return 0;  // content decides, not the name
    uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    check(index, file.size() + zeros, length + 8);
    simdjson::dom::parser parser;
    const auto json = std::string_view(file).substr(8, length);
    if (json.size() < length) return 0;  // part of the header is in the zeros
    require(parser.parse(simdjson::padded_string(json)).error() == simdjson::SUCCESS,
            "an accepted header is JSON");
  } catch (const Error& error) {
    require(error.message().find("x.safetensors") != std::string::npos, "errors name the file");
  }
  return 0;
}
