#include "inrush/codecs/keyed_tree.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <array>
#include <memory>
#include <utility>

#include "inrush/base/fetch_ahead.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

using State =
    std::unique_ptr<EVP_MAC_CTX, decltype([](EVP_MAC_CTX* state) { EVP_MAC_CTX_free(state); })>;

void require_gmac(bool done) {
  if (!done) throw Error(ErrorCode::memory, "AES-GMAC: OpenSSL refuses");
}

unsigned char* bytes_of(LeafDigest& digest) {
  return reinterpret_cast<unsigned char*>(digest.data());
}

// One nonce does for all leaves: digests stay in this process, and the same bytes have to have the
// same one.
class Gmac {
 public:
  Gmac() : mac_(EVP_MAC_fetch(nullptr, "GMAC", nullptr)) {
    require_gmac(mac_ != nullptr);
    require_gmac(RAND_priv_bytes(key_.data(), static_cast<int>(key_.size())) == 1);
  }
  ~Gmac() {
    OPENSSL_cleanse(key_.data(), key_.size());
    EVP_MAC_free(mac_);
  }
  Gmac(const Gmac&) = delete;
  Gmac& operator=(const Gmac&) = delete;

  // Ready for a leaf. Made anew for each: OpenSSL cannot copy one in every 3.0.
  [[nodiscard]] State begin() const {
    State state(EVP_MAC_CTX_new(mac_));
    require_gmac(state != nullptr);
    std::array<unsigned char, 12> nonce{};
    std::string cipher = "AES-128-GCM";
    const std::array words = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_CIPHER, cipher.data(), 0),
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_IV, nonce.data(), nonce.size()),
        OSSL_PARAM_construct_end()};
    require_gmac(EVP_MAC_init(state.get(), key_.data(), key_.size(), words.data()) == 1);
    return state;
  }

 private:
  EVP_MAC* mac_;
  std::array<unsigned char, 16> key_{};
};

}  // namespace

KeyedTree::KeyedTree() {
  hash_ = [gmac = std::make_shared<const Gmac>()](std::span<const std::byte> data) {
    const State state = gmac->begin();
    LeafDigest digest{};
    size_t size = 0;
    fetching_ahead(data, [&](std::span<const std::byte> step) {
      const auto* const bytes = reinterpret_cast<const unsigned char*>(step.data());
      require_gmac(EVP_MAC_update(state.get(), bytes, step.size()) == 1);
    });
    require_gmac(EVP_MAC_final(state.get(), bytes_of(digest), &size, digest.size()) == 1);
    return digest;
  };
  hash_({});  // what OpenSSL lacks is known now
}

DecoderFactory KeyedTree::decoder(TreeOptions options) const {
  return leaf_tree(hash_, std::move(options));
}

std::string KeyedTree::digest(std::span<const std::byte> data) const {
  return leaf_tree_root(hash_, data);
}

}  // namespace inrush
