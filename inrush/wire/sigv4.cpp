#include "inrush/wire/sigv4.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <ctime>
#include <map>
#include <vector>

#include "inrush/base/text.h"
#include "inrush/core/sha256.h"

namespace inrush {
namespace {

constexpr const char* kAlgorithm = "AWS4-HMAC-SHA256";

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.add(text);
  return hash.finish();
}

std::string hmac(std::string_view key, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned int size = 0;
  ::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(), &size);
  return {reinterpret_cast<const char*>(out.data()), size};
}

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

// "b=2&a" -> "a=&b=2"
std::string canonical_query(const std::string& query) {
  std::vector<std::pair<std::string, std::string>> parts;
  for (size_t at = 0; at < query.size();) {
    const size_t end = std::min(query.find('&', at), query.size());
    const std::string part = query.substr(at, end - at);
    const size_t equals = std::min(part.find('='), part.size());
    parts.emplace_back(part.substr(0, equals),
                       equals < part.size() ? part.substr(equals + 1) : std::string());
    at = end + 1;
  }
  std::sort(parts.begin(), parts.end());
  std::string out;
  for (const auto& [name, value] : parts) {
    out += fmt::format("{}{}={}", out.empty() ? "" : "&", name, value);
  }
  return out;
}

std::string moment(int64_t now) {
  const auto time = static_cast<time_t>(now);
  tm parts{};
  ::gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  const size_t size = ::strftime(text.data(), text.size(), "%Y%m%dT%H%M%SZ", &parts);
  return {text.data(), size};
}

}  // namespace

void sign_v4(HttpRequest& request, const Credentials& credentials, const SigningScope& scope,
             int64_t now) {
  const std::string date = moment(now);
  const std::string day = date.substr(0, 8);
  const std::string origin = request.url.origin();
  // TLS vouches for the body, and hashing it would cost as much again as sending it.
  const bool unsigned_body = request.url.scheme == "https" && !request.body.empty();
  const std::string payload = unsigned_body ? "UNSIGNED-PAYLOAD" : sha256_hex(request.body);
  request.headers.emplace_back("x-amz-date", date);
  if (scope.service == "s3") request.headers.emplace_back("x-amz-content-sha256", payload);
  if (!credentials.token.empty()) {
    request.headers.emplace_back("x-amz-security-token", credentials.token);
  }
  std::map<std::string, std::string> headers{{"host", origin.substr(origin.find("://") + 3)}};
  for (const auto& [name, value] : request.headers) headers[lower(name)] = value;
  std::string listed;
  std::string names;
  for (const auto& [name, value] : headers) {
    listed += fmt::format("{}:{}\n", name, value);
    names += (names.empty() ? "" : ";") + name;
  }
  const std::string canonical =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, request.url.path,
                  canonical_query(request.url.query), listed, names, payload);
  const std::string where = fmt::format("{}/{}/{}/aws4_request", day, scope.region, scope.service);
  const std::string text =
      fmt::format("{}\n{}\n{}\n{}", kAlgorithm, date, where, sha256_hex(canonical));
  std::string key = hmac("AWS4" + credentials.secret, day);
  for (const std::string_view part :
       {std::string_view(scope.region), std::string_view(scope.service),
        std::string_view("aws4_request")}) {
    key = hmac(key, part);
  }
  request.headers.emplace_back(
      "Authorization",
      fmt::format("{} Credential={}/{}, SignedHeaders={}, Signature={}", kAlgorithm,
                  credentials.key_id, where, names, hex(hmac(key, text))));
}

}  // namespace inrush
