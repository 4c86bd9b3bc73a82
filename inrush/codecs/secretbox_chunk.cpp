#include "inrush/codecs/secretbox_chunk.h"

#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>
#include <memory>

#include "inrush/base/fetch_ahead.h"
#include "inrush/codecs/sodium_bytes.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr size_t kBlock = 64;  // bytes of Salsa20's
constexpr size_t kKey = crypto_onetimeauth_KEYBYTES;

using Code = std::array<std::byte, crypto_onetimeauth_BYTES>;

// Poly1305 by OpenSSL, which has it for AVX-512, or by libsodium where OpenSSL may not (FIPS).
class Authenticator {
 public:
  explicit Authenticator(std::span<const std::byte, kKey> key) {
    static const auto mac = EVP_MAC_fetch(nullptr, "POLY1305", nullptr);
    if (mac != nullptr) state_.reset(EVP_MAC_CTX_new(mac));
    if (state_ && EVP_MAC_init(state_.get(), sodium_bytes(key.data()), kKey, nullptr) != 1) {
      state_.reset();
    }
    if (!state_) crypto_onetimeauth_init(&other_, sodium_bytes(key.data()));
  }
  ~Authenticator() { ::sodium_memzero(&other_, sizeof other_); }
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

  void add(std::span<const std::byte> data) {
    if (!state_) {
      crypto_onetimeauth_update(&other_, sodium_bytes(data.data()), data.size());
    } else if (EVP_MAC_update(state_.get(), sodium_bytes(data.data()), data.size()) != 1) {
      throw Error(ErrorCode::memory, "Poly1305: OpenSSL refuses");
    }
  }

  Code finish() {
    Code code{};
    size_t size = 0;
    if (!state_) {
      crypto_onetimeauth_final(&other_, sodium_bytes(code.data()));
    } else if (EVP_MAC_final(state_.get(), sodium_bytes(code.data()), &size, code.size()) != 1) {
      throw Error(ErrorCode::memory, "Poly1305: OpenSSL refuses");
    }
    return code;
  }

 private:
  struct Free {
    void operator()(EVP_MAC_CTX* state) const { ::EVP_MAC_CTX_free(state); }
  };
  std::unique_ptr<EVP_MAC_CTX, Free> state_;
  crypto_onetimeauth_state other_{};
};

// XSalsa20's stream. Of its first block, 32 bytes are the code's key and 32 the first of the data.
class Stream {
 public:
  explicit Stream(const ChunkSecrets& secrets)
      : nonce_(secrets.nonce.subspan<crypto_core_hsalsa20_INPUTBYTES>()) {
    crypto_core_hsalsa20(sodium_bytes(key_.data()), sodium_bytes(secrets.nonce.data()),
                         sodium_bytes(secrets.key.data()), nullptr);
    crypto_stream_salsa20(sodium_bytes(first_.data()), first_.size(), sodium_bytes(nonce_.data()),
                          sodium_bytes(key_.data()));
  }
  ~Stream() {
    ::sodium_memzero(key_.data(), key_.size());
    ::sodium_memzero(first_.data(), first_.size());
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  [[nodiscard]] std::span<const std::byte, kKey> code_key() const {
    return std::span(first_).first<kKey>();
  }

  // before(step) and after(step) of each part of the data, around what is done to it.
  template <typename Before, typename After>
  void apply(std::span<std::byte> data, Before before, After after) const {
    const auto head = data.first(std::min(data.size(), kBlock - kKey));
    before(head);
    for (size_t i = 0; i < head.size(); ++i) head[i] ^= first_[kKey + i];
    after(head);
    uint64_t block = 1;
    fetching_ahead(data.subspan(head.size()), [&](std::span<std::byte> step) {
      before(step);
      crypto_stream_salsa20_xor_ic(sodium_bytes(step.data()), sodium_bytes(step.data()),
                                   step.size(), sodium_bytes(nonce_.data()), block,
                                   sodium_bytes(key_.data()));
      after(step);
      block += kFetchStep / kBlock;
    });
  }

 private:
  std::span<const std::byte, crypto_stream_salsa20_NONCEBYTES> nonce_;
  std::array<std::byte, crypto_stream_salsa20_KEYBYTES> key_{};
  std::array<std::byte, kBlock> first_{};
};

constexpr auto kNothing = [](std::span<const std::byte>) {};

}  // namespace

std::array<std::byte, 16> encrypt_chunk(std::span<std::byte> data, const ChunkSecrets& secrets) {
  const Stream stream(secrets);
  Authenticator code(stream.code_key());
  stream.apply(data, kNothing, [&](std::span<const std::byte> step) { code.add(step); });
  return code.finish();
}

bool decrypt_chunk(std::span<std::byte> data, const ChunkSecrets& secrets,
                   std::span<const std::byte, 16> code) {
  const Stream stream(secrets);
  Authenticator found(stream.code_key());
  stream.apply(
      data, [&](std::span<const std::byte> step) { found.add(step); }, kNothing);
  const Code right = found.finish();
  if (crypto_verify_16(sodium_bytes(right.data()), sodium_bytes(code.data())) == 0) return true;
  stream.apply(data, kNothing, kNothing);
  return false;
}

}  // namespace inrush
