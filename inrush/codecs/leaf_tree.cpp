#include "inrush/codecs/leaf_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "inrush/codecs/checksums.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

std::string root_of(const std::vector<LeafDigest>& leaves) {
  return hex(sha256_leaf(std::as_bytes(std::span(leaves))));
}

struct Manner {
  LeafHash hash;
  TreeOptions options;
};

class LeafTree final : public Decoder {
 public:
  LeafTree(const TensorInfo& tensor, std::shared_ptr<const Manner> manner)
      : tensor_(tensor), manner_(std::move(manner)) {
    const size_t count = (tensor.size + kLeafSize - 1) / kLeafSize;
    leaves_.resize(count);
    seen_.resize(count);
    const auto& expected = manner_->options.expected_leaves;
    if (expected) expected_ = expected(tensor);
  }

  [[nodiscard]] DecoderTraits traits() const override {
    return {.chunk_size = kLeafSize,
            .order = DecodeOrder::any_order,
            .in_place = false,
            .concurrent = true};
  }

  void update(uint64_t offset, std::span<std::byte> data) override {
    const uint64_t end = offset + data.size();
    if (offset % kLeafSize != 0 || end > tensor_.size ||
        (end % kLeafSize != 0 && end != tensor_.size)) {
      throw Error(ErrorCode::usage, fmt::format("digest of {} [{}, +{}): not whole leaves",
                                                quoted(tensor_.name), offset, data.size()));
    }
    while (!data.empty()) {
      const auto leaf = data.first(std::min<size_t>(data.size(), kLeafSize));
      const size_t i = offset / kLeafSize;
      leaves_[i] = manner_->hash(leaf);
      seen_[i] = 1;
      check_leaf(i, leaf.size());
      data = data.subspan(leaf.size());
      offset += leaf.size();
    }
  }

  std::string finish() override {
    const auto absent = std::find(seen_.begin(), seen_.end(), 0);
    if (absent != seen_.end()) {
      const auto offset = static_cast<uint64_t>(absent - seen_.begin()) * kLeafSize;
      throw Error(ErrorCode::data, fmt::format("digest of {} [{}, +{}): these bytes never came",
                                               quoted(tensor_.name), offset,
                                               std::min(kLeafSize, tensor_.size - offset)));
    }
    std::string root = root_of(leaves_);
    const TreeOptions& options = manner_->options;
    const std::string expected = options.expected ? options.expected(tensor_) : "";
    if (!expected.empty() && expected != root) fail(0, tensor_.size, root, expected);
    if (options.leaves) options.leaves(tensor_, leaves_in_hex());
    if (options.root) options.root(tensor_, root);
    return root;
  }

 private:
  void check_leaf(size_t i, uint64_t size) const {
    if (expected_.empty()) return;
    const std::string found = hex(leaves_[i]);
    if (i >= expected_.size() || found != expected_[i]) {
      fail(i * kLeafSize, size, found, i < expected_.size() ? expected_[i] : "nothing");
    }
  }

  [[noreturn]] void fail(uint64_t offset, uint64_t size, const std::string& found,
                         const std::string& expected) const {
    throw Error(ErrorCode::data, fmt::format("digest of {} [{}, +{}): {}, but {} is expected",
                                             quoted(tensor_.name), offset, size, found, expected));
  }

  std::vector<std::string> leaves_in_hex() const {
    std::vector<std::string> out;
    out.reserve(leaves_.size());
    for (const auto& leaf : leaves_) out.push_back(hex(leaf));
    return out;
  }

  const TensorInfo tensor_;
  const std::shared_ptr<const Manner> manner_;  // a decoder may outlive its factory
  std::span<const std::string> expected_;
  std::vector<LeafDigest> leaves_;
  std::vector<uint8_t> seen_;  // bytes: threads set them at once
};

}  // namespace

std::string hex(const LeafDigest& digest) { return fmt::format("{:02x}", fmt::join(digest, "")); }

LeafDigest sha256_leaf(std::span<const std::byte> data) {
  return *checksums_of({}, data, false, true).sha256;
}

std::string leaf_tree_root(const LeafHash& hash, std::span<const std::byte> data) {
  std::vector<LeafDigest> leaves;
  while (!data.empty()) {
    const auto leaf = data.first(std::min<size_t>(data.size(), kLeafSize));
    leaves.push_back(hash(leaf));
    data = data.subspan(leaf.size());
  }
  return root_of(leaves);
}

DecoderFactory leaf_tree(LeafHash hash, TreeOptions options) {
  auto manner = std::make_shared<const Manner>(Manner{std::move(hash), std::move(options)});
  return [manner](const TensorInfo& tensor) -> std::unique_ptr<Decoder> {
    return std::make_unique<LeafTree>(tensor, manner);
  };
}

}  // namespace inrush
