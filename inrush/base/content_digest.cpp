#include "inrush/base/content_digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "inrush/base/fetch_ahead.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr size_t kSha1Digits = 40;
constexpr size_t kSha256Digits = 64;

void check(int answer) {
  if (answer != 1) throw Error(ErrorCode::memory, "digest: the library of OpenSSL refused");
}

bool is_hex(const std::string& text) {
  return text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

struct ContentDigest::State {
  EVP_MD_CTX* digest = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(digest); }
};

ContentDigest::ContentDigest(std::string name, uint64_t size) : name_(std::move(name)) {
  const bool git = name_.size() == kSha1Digits;
  if (!is_hex(name_) || (!git && name_.size() != kSha256Digits)) return;
  state_ = std::make_unique<State>();
  if (state_->digest == nullptr) throw Error(ErrorCode::memory, "digest: out of memory");
  check(EVP_DigestInit_ex(state_->digest, git ? EVP_sha1() : EVP_sha256(), nullptr));
  if (!git) return;
  std::string head = fmt::format("blob {}", size);
  head.push_back('\0');
  add(std::as_bytes(std::span(head)));
}

ContentDigest::~ContentDigest() = default;

void ContentDigest::add(std::span<const std::byte> bytes) {
  if (!state_) return;
  fetching_ahead(bytes, [&](std::span<const std::byte> step) {
    check(EVP_DigestUpdate(state_->digest, step.data(), step.size()));
  });
}

std::string ContentDigest::why_not() {
  if (!state_) return {};
  std::array<unsigned char, EVP_MAX_MD_SIZE> found{};
  unsigned int size = 0;
  check(EVP_DigestFinal_ex(state_->digest, found.data(), &size));
  std::string hex;
  for (const unsigned char byte : std::span(found).first(size)) hex += fmt::format("{:02x}", byte);
  if (hex == name_) return {};
  return fmt::format("its {} is {}, not {}", size == 20 ? "Git SHA-1" : "SHA-256", hex, name_);
}

}  // namespace inrush
