#include "inrush/wire/url.h"

#include <gtest/gtest.h>

#include "inrush/core/error.h"

namespace inrush {
namespace {

TEST(Url, comes_apart_and_together_again) {
  const Url url = parse_url("HTTPS://me:pw@Host.Example:8443/a%20b/c?x=1&y=2#part");
  EXPECT_EQ(url.scheme, "https");
  EXPECT_EQ(url.user, "me:pw");
  EXPECT_EQ(url.host, "host.example");
  EXPECT_EQ(url.path, "/a%20b/c");
  EXPECT_EQ(url.query, "x=1&y=2");
  EXPECT_EQ(url.text(), "https://host.example:8443/a%20b/c?x=1&y=2");
  EXPECT_EQ(parse_url("http://h:80").text(), "http://h/");
  EXPECT_EQ(parse_url("http://[::1]:9000/x").origin(), "http://[::1]:9000");
}

TEST(Url, is_shown_without_what_is_secret) {
  EXPECT_EQ(shown_url(parse_url("https://me:pw@h/a?sig=1")), "https://h/a?...");
  EXPECT_EQ(shown_url(parse_url("https://h/a")), "https://h/a");
}

TEST(Url, says_what_of_its_query_means_a_content) {
  EXPECT_EQ(unsigned_query("shard=2&X-Amz-Signature=a&Expires=3&file=b%20c&&sig=d"),
            "shard=2&file=b%20c");
  EXPECT_EQ(unsigned_query("X-Goog-Date=1&Signature=2&Key-Pair-Id=3"), "");
  EXPECT_EQ(unsigned_query("versionId=3&st=1&policy=2"), "versionId=3&st=1&policy=2");
}

TEST(Url, refuses_what_would_make_two_headers_or_is_no_url) {
  for (const char* text : {"http://h/a b", "http://h/a\r\nX: y", "http://h:port/", "http:///x",
                           "h/x", "http://h:1234567/", "http://me@/x"}) {
    EXPECT_THROW(parse_url(text), Error) << text;
  }
}

TEST(Url, an_error_does_not_repeat_the_password) {
  try {
    parse_url("http://me:s3cret@h:port/");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message().find("s3cret"), std::string::npos);
  }
}

TEST(Url, redirects_are_resolved_as_rfc_3986_has_it) {
  const Url base = parse_url("https://h/a/b/c?q");
  EXPECT_EQ(resolve_url(base, "https://other/x").text(), "https://other/x");
  EXPECT_EQ(resolve_url(base, "//other/x").text(), "https://other/x");
  EXPECT_EQ(resolve_url(base, "/x?y").text(), "https://h/x?y");
  EXPECT_EQ(resolve_url(base, "x").text(), "https://h/a/b/x");
  EXPECT_EQ(resolve_url(base, "../x").text(), "https://h/a/x");
  EXPECT_EQ(resolve_url(base, "../../../x").text(), "https://h/x");
  EXPECT_EQ(resolve_url(base, "?z").text(), "https://h/a/b/c?z");
}

TEST(Url, link_local_addresses_are_known_in_every_spelling) {
  for (const char* host : {"169.254.169.254", "0xa9fea9fe", "2852039166", "[fe80::1]",
                           "[fe80::1%25eth0]", "[::ffff:169.254.1.1]", "169.254.43518"}) {
    EXPECT_TRUE(is_link_local(host)) << host;
  }
  for (const char* host : {"169.255.1.1", "127.0.0.1", "[::1]", "example.org", "[fd00::1]"}) {
    EXPECT_FALSE(is_link_local(host)) << host;
  }
}

TEST(Url, percent_encoding_is_that_of_signatures) {
  EXPECT_EQ(percent_encoded("a/b c+d~e_f.g-h\xc3\xa9", true), "a/b%20c%2Bd~e_f.g-h%C3%A9");
  EXPECT_EQ(percent_encoded("a/b", false), "a%2Fb");
  EXPECT_EQ(percent_decoded("a%2Fb%c3%A9"), "a/b\xc3\xa9");
  EXPECT_THROW(percent_decoded("a%2"), Error);
}

}  // namespace
}  // namespace inrush
