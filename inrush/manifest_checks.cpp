// Tensors, and leaves of slices, held against a manifest.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "inrush/base/parallel.h"
#include "inrush/checks.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

// Index of a tensor, and number of a leaf of it: each once, however many slices lie in it.
using Leaf = std::pair<uint32_t, uint64_t>;

}  // namespace

// Tensors of one checkpoint, by what a manifest says of them.
class Expectation::Expected {
 public:
  Expected(const Checkpoint& checkpoint, std::shared_ptr<const Manifest> manifest)
      : checkpoint_(checkpoint), manifest_(std::move(manifest)) {
    for (const ManifestTensor& tensor : manifest_->tensors) {
      if (checkpoint_.index().find(tensor.name) == nullptr) {
        throw Error(ErrorCode::data, fmt::format("load {}: tensor {} is in the manifest, not here",
                                                 checkpoint_.uri(), quoted(tensor.name)));
      }
    }
  }

  [[nodiscard]] const ManifestTensor& of(const TensorInfo& tensor) const {
    const auto& all = manifest_->tensors;
    const auto at = std::lower_bound(
        all.begin(), all.end(), tensor.name,
        [](const ManifestTensor& one, const std::string& name) { return one.name < name; });
    if (at == all.end() || at->name != tensor.name) fail(tensor, "it is not in the manifest");
    if (at->dtype != tensor.dtype || at->shape != tensor.shape) {
      fail(tensor, fmt::format("{}[{}], and the manifest has {}[{}]", name_of(tensor.dtype),
                               fmt::join(tensor.shape, ", "), name_of(at->dtype),
                               fmt::join(at->shape, ", ")));
    }
    if (at->digest.empty()) fail(tensor, "the manifest has no digest of it");
    return *at;
  }

  [[noreturn]] void fail(const TensorInfo& tensor, const std::string& reason,
                         ErrorCode code = ErrorCode::data) const {
    fail(tensor, tensor.offset, tensor.size, reason, code);
  }
  [[noreturn]] void fail(const TensorInfo& tensor, uint64_t offset, uint64_t size,
                         const std::string& reason, ErrorCode code = ErrorCode::data) const {
    throw Error(code, fmt::format("load {} [{}, +{}): tensor {}: {}", blob_of(tensor).name, offset,
                                  size, quoted(tensor.name), reason));
  }
  // What a slice of a tensor lies in, and whether such a leaf is as expected.
  void add_leaves(const Want& want, std::set<Leaf>& out) const;
  void check(const Leaf& leaf) const;
  [[nodiscard]] const Blob& blob_of(const TensorInfo& tensor) const {
    return checkpoint_.index().blobs[tensor.blob];
  }

 private:
  const Checkpoint checkpoint_;
  const std::shared_ptr<const Manifest> manifest_;
};

namespace {

constexpr size_t kReaders = 8;  // for far places as well as for SHA-256

// A tree's decoder, whose errors say where the bytes lie.
class Placed final : public Decoder {
 public:
  Placed(std::unique_ptr<Decoder> tree, std::string file)
      : tree_(std::move(tree)), file_(std::move(file)) {}

  [[nodiscard]] DecoderTraits traits() const override { return tree_->traits(); }
  void update(uint64_t offset, std::span<std::byte> data) override {
    placed([&] { tree_->update(offset, data); });
  }
  std::string finish() override {
    std::string digest;
    placed([&] { digest = tree_->finish(); });
    return digest;
  }

 private:
  template <typename Work>
  void placed(const Work& work) const {
    try {
      work();
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("load {}: {}", file_, error.message()));
    }
  }

  std::unique_ptr<Decoder> tree_;
  std::string file_;
};

// The leaves of one tensor that a plan has bytes of.
void add_leaves_of(const Plan& plan, uint32_t index, const TensorInfo& tensor,
                   std::set<Leaf>& out) {
  for (const Range& range : plan.ranges) {
    for (uint32_t p = 0; p < range.piece_count; ++p) {
      const Piece& piece = plan.pieces[range.first_piece + p];
      for (uint32_t row = 0; row < piece.rows; ++row) {
        const uint64_t begin =
            range.offset + piece.source_offset + row * piece.source_pitch - tensor.offset;
        const uint64_t last = (begin + piece.row_size - 1) / kLeafSize;
        for (uint64_t leaf = begin / kLeafSize; leaf <= last; ++leaf) out.emplace(index, leaf);
      }
    }
  }
}

// Bytes that lie in the file as they are delivered.
bool lies_as_delivered(const TensorInfo& tensor) {
  return tensor.strides.empty() && tensor.size == delivered_size(tensor) &&
         (tensor.encoding.empty() || tensor.encoding.starts_with("torch."));
}

}  // namespace

void Expectation::Expected::add_leaves(const Want& want, std::set<Leaf>& out) const {
  const TensorInfo& tensor = checkpoint_.index().tensors[want.tensor];
  const ManifestTensor& known = of(tensor);
  if (!lies_as_delivered(tensor)) {
    fail(tensor, "its slices cannot be compared with a manifest: take it whole", ErrorCode::usage);
  }
  const uint64_t count = (tensor.size + kLeafSize - 1) / kLeafSize;
  if (count == 0) return;
  if (known.leaves.size() != count && count > 1) {
    fail(tensor,
         "the manifest has no leaves of it, which its slices are compared with: take it "
         "whole, or make the manifest anew",
         ErrorCode::usage);
  }
  const Selection alone{{want}};
  add_leaves_of(make_plan(checkpoint_.index(), {&alone, 1}), want.tensor, tensor, out);
}

void Expectation::Expected::check(const Leaf& leaf) const {
  const auto [index, number] = leaf;
  const TensorInfo& tensor = checkpoint_.index().tensors[index];
  const ManifestTensor& known = of(tensor);
  const uint64_t at = number * kLeafSize;
  std::vector<std::byte> bytes(std::min(kLeafSize, tensor.size - at));
  checkpoint_.store().read(blob_of(tensor), tensor.offset + at, bytes);
  // Of a single leaf the root says as much.
  const bool root = known.leaves.empty();
  const std::string found = root ? tree_digest(bytes) : hex(sha256_leaf(bytes));
  const std::string& wanted = root ? known.digest : known.leaves[number];
  if (found == wanted) return;
  fail(tensor, tensor.offset + at, bytes.size(),
       fmt::format("its digest is {}, and the manifest has {}", found, wanted));
}

Expectation::Expectation(const Checkpoint& checkpoint, std::shared_ptr<const Manifest> manifest)
    : expected_(std::make_shared<const Expected>(checkpoint, std::move(manifest))) {}

DecoderFactory Expectation::decoder() const {
  TreeOptions tree;
  tree.expected = [known = expected_](const TensorInfo& tensor) {
    return known->of(tensor).digest;
  };
  tree.expected_leaves = [known = expected_](const TensorInfo& tensor) {
    return std::span<const std::string>(known->of(tensor).leaves);
  };
  return [known = expected_, make = sha256_tree(std::move(tree))](const TensorInfo& tensor) {
    return std::make_unique<Placed>(make(tensor), known->blob_of(tensor).name);
  };
}

void Expectation::check_slices(std::span<const Selection> selections) const {
  std::set<Leaf> found;
  for (const Selection& selection : selections) {
    for (const Want& want : selection.wants) {
      if (!want.slice.empty()) expected_->add_leaves(want, found);
    }
  }
  const std::vector<Leaf> leaves(found.begin(), found.end());
  parallel_for(leaves.size(), kReaders, [&](size_t i) { expected_->check(leaves[i]); });
}

}  // namespace inrush
