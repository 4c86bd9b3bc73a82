#include "inrush/codecs/secretbox.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "inrush/base/cgroup.h"
#include "inrush/base/parallel.h"
#include "inrush/codecs/secretbox_chunk.h"
#include "inrush/codecs/sodium_bytes.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

static_assert(SecretKey::kSize == crypto_secretbox_KEYBYTES);
static_assert(crypto_secretbox_NONCEBYTES == 24 && crypto_secretbox_MACBYTES == 16);

void begin_sodium() {
  static const bool begun = ::sodium_init() >= 0;  // once, whoever comes first
  if (!begun) throw Error(ErrorCode::memory, "libsodium does not begin");
}

class SecretboxDecoder final : public Decoder {
 public:
  SecretboxDecoder(const TensorInfo& tensor, std::string file, const SecretKey& key, Secretbox box)
      : name_(tensor.name),
        file_(std::move(file)),
        offset_(tensor.offset),
        size_(tensor.size),
        key_(key),
        box_(std::move(box)) {}

  [[nodiscard]] DecoderTraits traits() const override {
    return {.chunk_size = box_.chunk_size,
            .order = DecodeOrder::any_order,
            .in_place = true,
            .concurrent = true};
  }

  void update(uint64_t offset, std::span<std::byte> data) override {
    while (!data.empty()) {
      const auto chunk = data.first(std::min<uint64_t>(data.size(), box_.chunk_size));
      const uint64_t index = offset / box_.chunk_size;
      const auto nonce = nonce_of(box_.nonce, index);
      if (!decrypt_chunk(chunk, {key_.bytes(), nonce}, box_.codes.at(index))) {
        throw Error(ErrorCode::data,
                    fmt::format("decrypt {} [{}, +{}): tensor {}: the key is wrong, or the bytes "
                                "were changed",
                                file_, offset_ + offset, chunk.size(), quoted(name_)));
      }
      decrypted_ += chunk.size();
      data = data.subspan(chunk.size());
      offset += chunk.size();
    }
  }

  std::string finish() override {
    const uint64_t decrypted = decrypted_;
    if (decrypted != size_) {
      throw Error(ErrorCode::data, fmt::format("decrypt {} [{}, +{}): tensor {}: {} bytes came",
                                               file_, offset_, size_, quoted(name_), decrypted));
    }
    return {};
  }

 private:
  const std::string name_;
  const std::string file_;
  const uint64_t offset_;
  const uint64_t size_;
  const SecretKey key_;
  const Secretbox box_;
  std::atomic<uint64_t> decrypted_ = 0;
};

}  // namespace

SecretKey::SecretKey(std::span<const std::byte, kSize> bytes) {
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

SecretKey::~SecretKey() { wipe(bytes_); }

void wipe(std::span<std::byte> bytes) { ::sodium_memzero(bytes.data(), bytes.size()); }

SecretKey derive_key(std::string_view passphrase, std::span<const std::byte, 16> salt,
                     const KeyCost& cost) {
  begin_sodium();
  if (cost.operations < crypto_pwhash_argon2id_OPSLIMIT_MIN ||
      cost.operations > crypto_pwhash_argon2id_OPSLIMIT_MAX ||
      cost.memory < crypto_pwhash_argon2id_MEMLIMIT_MIN ||
      cost.memory > crypto_pwhash_argon2id_MEMLIMIT_MAX) {
    throw Error(ErrorCode::data, fmt::format("derive a key: {} operations and {} bytes of memory "
                                             "are outside of what Argon2id has",
                                             cost.operations, cost.memory));
  }
  std::array<std::byte, SecretKey::kSize> key;
  const int failed = crypto_pwhash(sodium_bytes(key.data()), key.size(), passphrase.data(),
                                   passphrase.size(), sodium_bytes(salt.data()), cost.operations,
                                   cost.memory, crypto_pwhash_ALG_ARGON2ID13);
  SecretKey made{std::span<const std::byte, SecretKey::kSize>(key)};
  wipe(key);
  if (failed != 0) {
    throw Error(ErrorCode::memory,
                fmt::format("derive a key: Argon2id does not get {} bytes of memory", cost.memory));
  }
  return made;
}

void fill_random(std::span<std::byte> bytes) {
  begin_sodium();
  ::randombytes_buf(bytes.data(), bytes.size());
}

std::array<std::byte, 24> nonce_of(const std::array<std::byte, 24>& first, uint64_t index) {
  std::array<std::byte, 24> nonce = first;
  std::array<std::byte, 24> add{};
  for (size_t i = 0; i < sizeof index; ++i)
    add[i] = static_cast<std::byte>(index >> (8 * i) & 0xFF);
  ::sodium_add(sodium_bytes(nonce.data()), sodium_bytes(add.data()), nonce.size());
  return nonce;
}

void encrypt(std::span<std::byte> data, const SecretKey& key, Secretbox& box) {
  begin_sodium();
  box.codes.assign((data.size() + box.chunk_size - 1) / box.chunk_size, {});
  const size_t threads = box.codes.size() > 1 ? ask_grants().cpus : 1;
  parallel_for(box.codes.size(), threads, [&](size_t index) {
    const uint64_t begin = index * box.chunk_size;
    const auto chunk = data.subspan(begin, std::min<uint64_t>(data.size() - begin, box.chunk_size));
    const auto nonce = nonce_of(box.nonce, index);
    box.codes[index] = encrypt_chunk(chunk, {key.bytes(), nonce});
  });
}

std::unique_ptr<Decoder> make_secretbox(const TensorInfo& tensor, std::string file,
                                        const SecretKey& key, Secretbox box) {
  begin_sodium();
  return std::make_unique<SecretboxDecoder>(tensor, std::move(file), key, std::move(box));
}

}  // namespace inrush
