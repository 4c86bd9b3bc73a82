// A data.pkl in an archive with two storages of 64 bytes, "0" and "1"; or, where the input begins
// with PK, the whole archive. Then what its checksums are found by.
#include "inrush/formats/pytorch.h"
#include "fuzz/any_file.h"

namespace inrush::fuzz {
namespace {

void put(std::string& out, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i, value >>= 8) out += static_cast<char>(value & 0xFF);
}

std::string archive_with(const std::string& pickle) {
  const std::pair<std::string, std::string> entries[] = {{"x/data.pkl", pickle},
                                                         {"x/data/0", std::string(64, 'a')},
                                                         {"x/data/1", std::string(64, 'b')}};
  std::string file;
  std::string directory;
  for (const auto& [name, bytes] : entries) {
    directory += "PK\x01\x02";
    put(directory, 0, 16);
    put(directory, bytes.size(), 4);
    put(directory, bytes.size(), 4);
    put(directory, name.size(), 2);
    put(directory, 0, 12);
    put(directory, file.size(), 4);
    directory += name;
    file += "PK\x03\x04";
    put(file, 0, 22);
    put(file, name.size(), 2);
    put(file, 0, 2);
    file += name + bytes;
  }
  const uint64_t at = file.size();
  file += directory + "PK\x05\x06";
  put(file, 0, 6);
  put(file, std::size(entries), 2);
  put(file, directory.size(), 4);
  put(file, at, 4);
  put(file, 0, 2);
  return file;
}

}  // namespace
}  // namespace inrush::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  std::string file(text_of(data, size));
  if (!file.starts_with("PK")) file = archive_with(file);
  check_file("x.pt", reinterpret_cast<const uint8_t*>(file.data()), file.size());
  MemoryStore store({{"x.pt", file}});
  try {
    const Blob blob = store.open("x.pt");
    uint64_t end = 0;
    for (const TorchEntry& entry : read_torch_file(store, blob).entries) {
      require(entry.offset >= end && entry.size <= blob.size - entry.offset,
              "entries lie in the file, one behind the other");
      end = entry.offset + entry.size;
    }
  } catch (const Error& error) {
    require(error.message().find("x.pt") != std::string::npos, "errors name the file");
  }
  return 0;
}
