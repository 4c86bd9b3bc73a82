// A small index and selections made of the input: the plan delivers to every consumer exactly the
// bytes that the definition of a slice gives, each once.
#include "inrush/core/plan.h"

#include <fuzzer/FuzzedDataProvider.h>

#include "fuzz/memory_store.h"
#include "tests/core/plan_naive.h"

namespace inrush::fuzz {
namespace {

using naive::Bytes;

class Maker {
 public:
  Maker(const uint8_t* data, size_t size) : input_(data, size) {}

  Index index() {
    Index index;
    const auto blobs = input_.ConsumeIntegralInRange<uint32_t>(1, 3);
    for (uint32_t i = 0; i < blobs; ++i) {
      Blob blob;
      blob.name = "b" + std::to_string(i);
      blob.size = input_.ConsumeIntegralInRange<uint64_t>(0, 9);
      const auto tensors = input_.ConsumeIntegralInRange<uint32_t>(0, 4);
      for (uint32_t t = 0; t < tensors; ++t) add_tensor(index, blob, i);
      index.blobs.push_back(blob);
    }
    index.finish();
    return index;
  }

  std::vector<Selection> selections(const Index& index) {
    std::vector<Selection> all(input_.ConsumeIntegralInRange<size_t>(0, 4));
    for (auto& selection : all) {
      const bool backwards = input_.ConsumeBool();
      for (uint32_t i = 0; i < index.tensors.size(); ++i) {
        const auto count = static_cast<uint32_t>(index.tensors.size());
        const uint32_t tensor = backwards ? count - 1 - i : i;
        if (!input_.ConsumeBool()) continue;
        selection.wants.push_back({tensor, slice(index.tensors[tensor])});
      }
    }
    return all;
  }

  PlanLimits limits() {
    PlanLimits limits;
    limits.range_size = input_.ConsumeIntegralInRange<uint64_t>(1, 300);
    limits.merge_gap = input_.ConsumeIntegralInRange<uint64_t>(0, 300);
    limits.largest_plan = 1 << 16;
    return limits;
  }

 private:
  void add_tensor(Index& index, Blob& blob, uint32_t number) {
    TensorInfo tensor;
    tensor.name = "t" + std::to_string(index.tensors.size());
    tensor.dtype = static_cast<Dtype>(input_.ConsumeIntegralInRange<int>(0, kDtypeCount - 1));
    uint64_t bits = bits_of(tensor.dtype);
    const auto rank = input_.ConsumeIntegralInRange<size_t>(0, 3);
    for (size_t i = 0; i < rank; ++i) {
      tensor.shape.push_back(input_.ConsumeIntegralInRange<uint64_t>(0, 6));
      bits *= tensor.shape.back();
    }
    if (bits % 8 != 0) return;
    tensor.blob = number;
    tensor.offset = blob.size;
    tensor.size = bits / 8;
    blob.size += tensor.size;
    index.tensors.push_back(tensor);
  }

  std::vector<SliceDim> slice(const TensorInfo& tensor) {
    std::vector<SliceDim> dims;
    const auto rank = input_.ConsumeIntegralInRange<size_t>(0, tensor.shape.size());
    for (size_t i = 0; i < rank; ++i) {
      const auto start = input_.ConsumeIntegralInRange<uint64_t>(0, tensor.shape[i]);
      const auto stop = input_.ConsumeIntegralInRange<uint64_t>(start, tensor.shape[i]);
      dims.push_back({start, stop, input_.ConsumeIntegralInRange<uint64_t>(1, 4)});
    }
    return dims;
  }

  FuzzedDataProvider input_;
};

// Bytes that tell where they are.
std::vector<Bytes> contents(const Index& index) {
  std::vector<Bytes> blobs;
  uint64_t word = 1;
  for (const auto& blob : index.blobs) {
    Bytes& bytes = blobs.emplace_back(blob.size);
    for (auto& byte : bytes) {
      word = word * 6364136223846793005ULL + 1442695040888963407ULL;
      byte = static_cast<uint8_t>(word >> 56);
    }
  }
  return blobs;
}

const Want& want_of(const Target& target, const std::vector<Selection>& selections) {
  for (const auto& want : selections.at(target.consumer).wants) {
    if (want.tensor == target.tensor) return want;
  }
  std::abort();
}

void check(const Plan& plan, const Index& index, const std::vector<Selection>& selections) {
  const auto blobs = contents(index);
  std::vector<Bytes> got;
  std::vector<Bytes> times;
  for (const auto& target : plan.targets) {
    got.emplace_back(target.size);
    times.emplace_back(target.size);
  }
  for (const auto& range : plan.ranges) {
    const Bytes& blob = blobs.at(range.blob);
    require(range.size > 0 && range.offset + range.size <= blob.size(), "ranges are in the blob");
    for (uint32_t p = range.first_piece; p < range.first_piece + range.piece_count; ++p) {
      const Piece& piece = plan.pieces.at(p);
      naive::each_byte(piece, [&](uint64_t source, uint64_t target) {
        require(source < range.size, "pieces are in their range");
        got.at(piece.target).at(target) = blob.at(range.offset + source);
        ++times.at(piece.target).at(target);
      });
    }
  }
  size_t wanted = 0;
  for (const auto& selection : selections) wanted += selection.wants.size();
  require(plan.targets.size() == wanted, "a target for each want");
  for (size_t i = 0; i < plan.targets.size(); ++i) {
    const Target& target = plan.targets[i];
    const auto& tensor = index.tensors.at(target.tensor);
    require(got[i] == naive::slice(blobs.at(tensor.blob), tensor, want_of(target, selections)),
            "the bytes that are wanted");
    require(std::count(times[i].begin(), times[i].end(), 1) == static_cast<long>(times[i].size()),
            "each byte once");
  }
}

}  // namespace
}  // namespace inrush::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  Maker maker(data, size);
  const Index index = maker.index();
  const auto selections = maker.selections(index);
  const PlanLimits limits = maker.limits();
  try {
    const Plan plan = make_plan(index, selections, limits);
    check(plan, index, selections);
    require(plan.digest() == make_plan(index, selections, limits).digest(), "equal plans");
  } catch (const Error& error) {
    require(error.code() == ErrorCode::usage, "only a cut sub-byte element is refused");
  }
  return 0;
}
