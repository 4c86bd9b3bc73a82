// A .tensors file without the zeros of its index: the input is the head and the lines, behind which
// are 512 bytes; then every record that the index names.
#include "inrush/formats/tensorizer.h"

#include <algorithm>

#include "fuzz/any_file.h"

namespace {

using namespace inrush;

constexpr uint64_t kHead = 0x49;  // bytes before the index

// Whether the lines are found where they were read.
bool found_again(const TensorsFile& file, std::span<const std::byte> index, bool tagged) {
  try {
    const auto lines = tensors_lines(index, file.entries.size(), tagged);
    return std::equal(lines.begin(), lines.end(), file.entries.begin(), file.entries.end(),
                      [](const auto& line, const auto& entry) { return line.path == entry.path; });
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  check_file("x.tensors", data, size);
  MemoryStore store({{"x.tensors", std::string(text_of(data, size))}}, 512);
  try {
    const Blob blob = store.open("x.tensors");
    const TensorsFile file = read_tensors_file(store, blob);
    std::vector<std::byte> index(blob.size - kHead);
    store.read(blob, kHead, index);
    require(found_again(file, index, false) || found_again(file, index, true), "as it was read");
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
