#include "inrush/codecs/checksums.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <utility>

#include "inrush/base/fetch_ahead.h"
#include "inrush/codecs/crc32.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/shim/crc.h"

namespace inrush {
namespace {

struct FreeDigest {
  void operator()(EVP_MD_CTX* digest) const { ::EVP_MD_CTX_free(digest); }
};

// Of bytes as they come, those of the two that are wanted.
class Running {
 public:
  Running(bool crc32, bool sha256) : wants_crc32_(crc32) {
    if (!sha256) return;
    sha256_.reset(EVP_MD_CTX_new());
    require(sha256_ && EVP_DigestInit_ex(sha256_.get(), EVP_sha256(), nullptr) == 1);
  }

  void add(std::span<const std::byte> data) {
    if (!sha256_) {
      if (wants_crc32_) crc32_ = crc32(crc32_, data);
      return;
    }
    fetching_ahead(data, [&](std::span<const std::byte> step) {
      if (wants_crc32_) crc32_ = crc32(crc32_, step);
      require(EVP_DigestUpdate(sha256_.get(), step.data(), step.size()) == 1);
    });
  }

  Checksums finish() {
    Checksums found;
    if (wants_crc32_) found.crc32 = crc32_;
    if (!sha256_) return found;
    auto& digest = found.sha256.emplace();
    auto* const bytes = reinterpret_cast<unsigned char*>(digest.data());
    require(EVP_DigestFinal_ex(sha256_.get(), bytes, nullptr) == 1);
    return found;
  }

 private:
  static void require(bool done) {
    if (!done) throw Error(ErrorCode::memory, "SHA-256: OpenSSL refuses");
  }

  bool wants_crc32_;
  uint32_t crc32_ = 0;
  std::unique_ptr<EVP_MD_CTX, FreeDigest> sha256_;
};

// Whose bytes they are, for errors.
class Subject {
 public:
  Subject(const TensorInfo& tensor, std::string file)
      : name_(tensor.name), file_(std::move(file)), offset_(tensor.offset), size_(tensor.size) {}

  void compare(uint32_t found, uint32_t expected) const {
    if (found == expected) return;
    fail(fmt::format("its CRC-32 is {:08x}, but {:08x} is expected", found, expected));
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw Error(ErrorCode::data, fmt::format("verify {} [{}, +{}): tensor {}: {}", file_, offset_,
                                             size_, quoted(name_), reason));
  }

 private:
  const std::string name_;
  const std::string file_;
  const uint64_t offset_;
  const uint64_t size_;
};

// Each stretch by itself; at the end they are joined.
class CrcDecoder final : public Decoder {
 public:
  CrcDecoder(const TensorInfo& tensor, std::string file, ChecksumSource expected)
      : subject_(tensor, std::move(file)), source_(std::move(expected)) {}

  [[nodiscard]] DecoderTraits traits() const override {
    return {.chunk_size = 1,
            .order = DecodeOrder::any_order,
            .in_place = false,
            .concurrent = true,
            .in_passing = true};
  }

  void update(uint64_t offset, std::span<std::byte> data) override {
    const Part part{data.size(), crc32(0, data)};
    const std::lock_guard lock(mutex_);
    parts_.emplace(offset, part);
  }

  std::string finish() override {
    const Checksums expected = source_();
    if (!expected.crc32) return {};
    uint32_t found = crc32(0, expected.before);
    for (const auto& [offset, part] : parts_) {
      found = static_cast<uint32_t>(crc_joined(CrcKind::crc32, found, part.crc, part.size));
    }
    subject_.compare(found, *expected.crc32);
    return {};
  }

 private:
  struct Part {
    uint64_t size;
    uint32_t crc;
  };

  const Subject subject_;
  const ChecksumSource source_;
  std::mutex mutex_;
  std::map<uint64_t, Part> parts_;  // by offset
};

class ChecksumDecoder final : public Decoder {
 public:
  ChecksumDecoder(const TensorInfo& tensor, std::string file, ChecksumSource expected)
      : subject_(tensor, std::move(file)), source_(std::move(expected)) {}

  [[nodiscard]] DecoderTraits traits() const override { return {}; }

  void update(uint64_t, std::span<std::byte> data) override { running().add(data); }

  std::string finish() override {
    const Checksums found = running().finish();
    if (found.crc32) subject_.compare(*found.crc32, *expected_.crc32);
    if (found.sha256 != expected_.sha256) {
      subject_.fail(fmt::format("its SHA-256 is {}, but {} is expected", hex(*found.sha256),
                                hex(*expected_.sha256)));
    }
    return {};
  }

 private:
  static std::string hex(const std::array<std::byte, 32>& digest) {
    return fmt::format("{:02x}", fmt::join(digest, ""));
  }

  // Begins with the first bytes.
  Running& running() {
    if (running_) return *running_;
    expected_ = source_();
    running_.emplace(expected_.crc32.has_value(), expected_.sha256.has_value());
    running_->add(expected_.before);
    return *running_;
  }

  const Subject subject_;
  const ChecksumSource source_;
  Checksums expected_;  // once the first bytes are there
  std::optional<Running> running_;
};

class Chain final : public Decoder {
 public:
  Chain(uint64_t size, std::vector<std::unique_ptr<Decoder>> decoders)
      : decoders_(std::move(decoders)) {
    traits_ = {.chunk_size = 1,
               .order = DecodeOrder::any_order,
               .in_place = false,
               .concurrent = true,
               .in_passing = true};
    for (const auto& decoder : decoders_) {
      const DecoderTraits one = decoder->traits();
      const uint64_t chunk = std::max<uint64_t>(one.chunk_size, 1);
      // Chunks that fit both; where there are none below the tensor's size, it is one chunk.
      uint64_t both = 0;
      const uint64_t times = chunk / std::gcd(traits_.chunk_size, chunk);
      if (__builtin_mul_overflow(traits_.chunk_size, times, &both))
        both = std::max<uint64_t>(size, 1);
      traits_.chunk_size = both;
      if (one.order == DecodeOrder::in_order) traits_.order = DecodeOrder::in_order;
      traits_.in_place = traits_.in_place || one.in_place;
      traits_.concurrent = traits_.concurrent && one.concurrent;
      traits_.in_passing = traits_.in_passing && one.in_passing;
    }
  }

  [[nodiscard]] DecoderTraits traits() const override { return traits_; }

  void update(uint64_t offset, std::span<std::byte> data) override {
    for (const auto& decoder : decoders_) decoder->update(offset, data);
  }

  std::string finish() override {
    std::string digest;
    for (const auto& decoder : decoders_) digest = decoder->finish();
    return digest;
  }

  void stop() override {
    for (const auto& decoder : decoders_) decoder->stop();
  }

 private:
  std::vector<std::unique_ptr<Decoder>> decoders_;
  DecoderTraits traits_;
};

}  // namespace

Checksums checksums_of(std::span<const std::byte> before, std::span<const std::byte> data,
                       bool crc32, bool sha256) {
  Running running(crc32, sha256);
  running.add(before);
  running.add(data);
  return running.finish();
}

std::unique_ptr<Decoder> make_checksums(const TensorInfo& tensor, std::string file,
                                        ChecksumSource expected) {
  return std::make_unique<ChecksumDecoder>(tensor, std::move(file), std::move(expected));
}

std::unique_ptr<Decoder> make_crc_check(const TensorInfo& tensor, std::string file,
                                        ChecksumSource expected) {
  return std::make_unique<CrcDecoder>(tensor, std::move(file), std::move(expected));
}

std::unique_ptr<Decoder> make_chain(const TensorInfo& tensor,
                                    std::vector<std::unique_ptr<Decoder>> decoders) {
  std::erase(decoders, nullptr);
  if (decoders.empty()) return nullptr;
  if (decoders.size() == 1) return std::move(decoders.front());
  return std::make_unique<Chain>(tensor.size, std::move(decoders));
}

}  // namespace inrush
