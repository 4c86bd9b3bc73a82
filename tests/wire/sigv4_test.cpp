// The vectors that AWS publishes: of the signing test suite, and of S3's own documentation.
#include "inrush/wire/sigv4.h"

#include <gtest/gtest.h>

namespace inrush {
namespace {

constexpr int64_t kSuiteTime = 1440938160;  // 20150830T123600Z
constexpr int64_t kS3Time = 1369353600;     // 20130524T000000Z
const Credentials kSuite{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "", 0};
const Credentials kS3{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "", 0};

std::string authorization(const HttpRequest& request) {
  for (const auto& [name, value] : request.headers) {
    if (name == "Authorization") return value;
  }
  return "";
}

std::string signature(HttpRequest request, const Credentials& who, const SigningScope& scope,
                      int64_t now) {
  sign_v4(request, who, scope, now);
  const std::string text = authorization(request);
  return text.substr(text.rfind('=') + 1);
}

HttpRequest request_of(const std::string& method, const std::string& url) {
  HttpRequest request;
  request.method = method;
  request.url = parse_url(url);
  return request;
}

std::string suite(const std::string& method, const std::string& url) {
  return signature(request_of(method, url), kSuite, {"us-east-1", "service"}, kSuiteTime);
}

TEST(SigV4, signs_as_the_test_suite_says) {
  EXPECT_EQ(suite("GET", "https://example.amazonaws.com/"),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
  EXPECT_EQ(suite("POST", "https://example.amazonaws.com/"),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
  EXPECT_EQ(suite("GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
}

TEST(SigV4, signs_a_part_of_an_object_as_the_documentation_of_s3_does) {
  HttpRequest request = request_of("GET", "http://examplebucket.s3.amazonaws.com/test.txt");
  request.headers.emplace_back("Range", "bytes=0-9");
  sign_v4(request, kS3, {"us-east-1", "s3"}, kS3Time);
  EXPECT_EQ(authorization(request),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(SigV4, signs_queries_and_bodies_as_the_documentation_of_s3_does) {
  const SigningScope scope{"us-east-1", "s3"};
  const std::string host = "http://examplebucket.s3.amazonaws.com/";
  EXPECT_EQ(signature(request_of("GET", host + "?lifecycle"), kS3, scope, kS3Time),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(signature(request_of("GET", host + "?max-keys=2&prefix=J"), kS3, scope, kS3Time),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
  HttpRequest put = request_of("PUT", host + "test%24file.text");
  put.headers.emplace_back("Date", "Fri, 24 May 2013 00:00:00 GMT");
  put.headers.emplace_back("x-amz-storage-class", "REDUCED_REDUNDANCY");
  put.body = "Welcome to Amazon S3.";
  EXPECT_EQ(signature(put, kS3, scope, kS3Time),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(SigV4, a_session_token_is_sent_and_signed) {
  HttpRequest request = request_of("GET", "https://b.s3.amazonaws.com/k");
  sign_v4(request, {"id", "secret", "session", 0}, {"eu-west-1", "s3"}, kS3Time);
  EXPECT_NE(authorization(request).find("x-amz-date;x-amz-security-token"), std::string::npos);
  EXPECT_EQ(authorization(request).find("secret="), std::string::npos);
}

}  // namespace
}  // namespace inrush
