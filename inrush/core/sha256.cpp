#include "inrush/core/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr size_t kPendingSize = 64UL << 10;

void check(int answer) {
  if (answer != 1) throw Error(ErrorCode::memory, "sha256: the library of OpenSSL refused");
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* digest = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(digest); }
};

Sha256::Sha256() : state_(std::make_unique<State>()), pending_(kPendingSize) {
  if (state_->digest == nullptr) throw Error(ErrorCode::memory, "sha256: out of memory");
  check(EVP_DigestInit_ex(state_->digest, EVP_sha256(), nullptr));
}

Sha256::~Sha256() = default;

void Sha256::add(std::string_view bytes) {
  flush();
  check(EVP_DigestUpdate(state_->digest, bytes.data(), bytes.size()));
}

void Sha256::add(uint64_t number) {
  if (used_ == kPendingSize) flush();
  unsigned char* bytes = pending_.data() + used_;
  for (size_t i = 0; i < sizeof number; ++i) {
    bytes[i] = static_cast<unsigned char>(number >> (8 * i));
  }
  used_ += sizeof number;
}

std::string Sha256::finish() {
  flush();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  check(EVP_DigestFinal_ex(state_->digest, digest.data(), &size));
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) {
    hex.push_back(kDigits[digest[i] >> 4]);
    hex.push_back(kDigits[digest[i] & 15]);
  }
  return hex;
}

void Sha256::flush() {
  if (used_ > 0) check(EVP_DigestUpdate(state_->digest, pending_.data(), used_));
  used_ = 0;
}

}  // namespace inrush
