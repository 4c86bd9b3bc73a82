// model.safetensors.index.json beside two good files: what it decides is among what is there.
#include "fuzz/memory_store.h"
#include "inrush/formats/formats.h"

namespace inrush::fuzz {
namespace {

std::string file_with(const std::string& json, size_t data_size) {
  std::string file(8, '\0');
  const uint64_t length = json.size();
  std::memcpy(file.data(), &length, sizeof length);
  return file + json + std::string(data_size, 'x');
}

}  // namespace
}  // namespace inrush::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  const std::string one = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                          R"("b":{"dtype":"U8","shape":[],"data_offsets":[1,2]}})";
  const std::string two = R"({"c":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})";
  MemoryStore store({{"1.safetensors", file_with(one, 2)},
                     {"2.safetensors", file_with(two, 4)},
                     {"model.safetensors.index.json", std::string(text_of(data, size))}});
  try {
    const Index index = read_index(store);
    require(!index.blobs.empty() && index.blobs.size() <= 2, "one or both files");
    for (const auto& blob : index.blobs) {
      require(blob.name == "1.safetensors" || blob.name == "2.safetensors", "of those that exist");
    }
  } catch (const Error& error) {
    require(error.code() != ErrorCode::memory, "no input is too large");
  }
  return 0;
}
