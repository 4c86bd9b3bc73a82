#include "inrush/codecs/keyed_tree.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <array>
#include <memory>
#include <utility>

#include "inrush/base/fetch_ahead.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

using Mac = std::unique_ptr<EVP_MAC, decltype([](EVP_MAC* mac) { EVP_MAC_free(mac); })>;
using MacState =
    std::unique_ptr<EVP_MAC_CTX, decltype([](EVP_MAC_CTX* state) { EVP_MAC_CTX_free(state); })>;

void require_gmac(bool done) {
  if (!done) throw Error(ErrorCode::memory, "AES-GMAC: OpenSSL refuses");
}

// With its key set, to be copied for every leaf. One nonce does for all: digests stay in this
// process, and the same bytes have to have the same one.
std::shared_ptr<EVP_MAC_CTX> keyed() {
  const Mac mac(EVP_MAC_fetch(nullptr, "GMAC", nullptr));
  require_gmac(mac != nullptr);
  MacState state(EVP_MAC_CTX_new(mac.get()));
  require_gmac(state != nullptr);
  std::array<unsigned char, 16> key{};
  std::array<unsigned char, 12> nonce{};
  require_gmac(RAND_priv_bytes(key.data(), key.size()) == 1);
  std::string cipher = "AES-128-GCM";
  const std::array words = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_CIPHER, cipher.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_IV, nonce.data(), nonce.size()),
      OSSL_PARAM_construct_end()};
  require_gmac(EVP_MAC_init(state.get(), key.data(), key.size(), words.data()) == 1);
  OPENSSL_cleanse(key.data(), key.size());
  return state;
}

}  // namespace

KeyedTree::KeyedTree() {
  hash_ = [origin = keyed()](std::span<const std::byte> data) {
    const MacState state(EVP_MAC_CTX_dup(origin.get()));
    require_gmac(state != nullptr);
    LeafDigest digest{};
    size_t size = 0;
    fetching_ahead(data, [&](std::span<const std::byte> step) {
      const auto* const bytes = reinterpret_cast<const unsigned char*>(step.data());
      require_gmac(EVP_MAC_update(state.get(), bytes, step.size()) == 1);
    });
    require_gmac(EVP_MAC_final(state.get(), digest.data(), &size, digest.size()) == 1);
    return digest;
  };
}

DecoderFactory KeyedTree::decoder(TreeOptions options) const {
  return leaf_tree(hash_, std::move(options));
}

std::string KeyedTree::digest(std::span<const std::byte> data) const {
  return leaf_tree_root(hash_, data);
}

}  // namespace inrush
