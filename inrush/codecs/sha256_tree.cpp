#include "inrush/codecs/sha256_tree.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <utility>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

using Digest = std::array<unsigned char, 32>;

Digest sha256(const void* data, size_t size) {
  Digest digest{};
  if (EVP_Digest(data, size, digest.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    throw Error(ErrorCode::memory, "SHA-256: OpenSSL refuses");
  }
  return digest;
}

std::string hex(const Digest& digest) { return fmt::format("{:02x}", fmt::join(digest, "")); }

class Sha256Tree final : public Decoder {
 public:
  Sha256Tree(const TensorInfo& tensor, std::shared_ptr<const TreeOptions> options)
      : tensor_(tensor), options_(std::move(options)) {
    const size_t count = (tensor.size + kLeafSize - 1) / kLeafSize;
    leaves_.resize(count);
    seen_.resize(count);
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
      leaves_[i] = sha256(leaf.data(), leaf.size());
      seen_[i] = 1;
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
    const std::string root = hex(sha256(leaves_.data(), leaves_.size() * sizeof(Digest)));
    const std::string expected = options_->expected ? options_->expected(tensor_) : "";
    if (!expected.empty() && expected != root) {
      throw Error(ErrorCode::data, fmt::format("digest of {} [0, +{}): {}, but {} is expected",
                                               quoted(tensor_.name), tensor_.size, root, expected));
    }
    if (options_->leaves) options_->leaves(tensor_, leaves_in_hex());
    return root;
  }

 private:
  std::vector<std::string> leaves_in_hex() const {
    std::vector<std::string> out;
    out.reserve(leaves_.size());
    for (const auto& leaf : leaves_) out.push_back(hex(leaf));
    return out;
  }

  const TensorInfo tensor_;
  const std::shared_ptr<const TreeOptions> options_;  // a decoder may outlive its factory
  std::vector<Digest> leaves_;
  std::vector<uint8_t> seen_;  // bytes: threads set them at once
};

}  // namespace

std::string tree_digest(std::span<const std::byte> data) {
  std::vector<Digest> leaves;
  while (!data.empty()) {
    const auto leaf = data.first(std::min<size_t>(data.size(), kLeafSize));
    leaves.push_back(sha256(leaf.data(), leaf.size()));
    data = data.subspan(leaf.size());
  }
  return hex(sha256(leaves.data(), leaves.size() * sizeof(Digest)));
}

DecoderFactory sha256_tree(TreeOptions options) {
  auto shared = std::make_shared<const TreeOptions>(std::move(options));
  return [shared](const TensorInfo& tensor) -> std::unique_ptr<Decoder> {
    return std::make_unique<Sha256Tree>(tensor, shared);
  };
}

}  // namespace inrush
