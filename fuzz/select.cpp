// What users type: patterns and slices. The input is pattern, NUL, slices, NUL, a tensor's name.
#include "inrush/core/select.h"

#include "fuzz/memory_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  std::string_view rest = text_of(data, size);
  std::string parts[3];
  for (auto& part : parts) {
    part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
  }
  Index index;
  index.blobs.resize(1);
  for (const auto& name : {parts[2], parts[2] + ".weight"}) {
    TensorInfo tensor;
    tensor.name = name;
    tensor.shape = {4, 6};
    tensor.size = 24;
    tensor.offset = index.tensors.size() * 24;
    index.blobs[0].size += 24;
    index.tensors.push_back(tensor);
  }
  index.finish();
  try {
    SelectOptions options;
    options.include = {parts[0]};
    if (!parts[1].empty()) options.slices = {{"*", parse_slices(parts[1])}};
    const auto wants = select(index, options);
    require(!wants.empty(), "a pattern that matches nothing is refused");
    Selection selection;
    selection.wants = wants;
    make_plan(index, std::span(&selection, 1));
  } catch (const Error& error) {
    require(error.code() == ErrorCode::usage, "the caller's fault");
  }
  return 0;
}
