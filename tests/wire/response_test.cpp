#include "inrush/wire/response.h"

#include <gtest/gtest.h>

#include "inrush/core/error.h"
#include "inrush/wire/listing.h"

namespace inrush {
namespace {

ResponseHead head_of(std::initializer_list<const char*> lines) {
  ResponseHead head;
  for (const char* line : lines) head.add_line(line);
  return head;
}

TEST(Response, the_last_of_several_heads_counts) {
  const auto head = head_of({"HTTP/1.1 100 Continue\r\n", "X-A: 1\r\n", "\r\n", "HTTP/2 206 \r\n",
                             "ETag:  \"x\" \r\n", "Junk\r\n"});
  EXPECT_EQ(head.status, 206);
  EXPECT_EQ(head.header("etag"), "\"x\"");
  EXPECT_EQ(head.header("x-a"), "");
}

TEST(Response, content_ranges_are_read_strictly) {
  const auto range = parse_content_range("bytes 8-15/100");
  ASSERT_TRUE(range && range->first);
  EXPECT_EQ(*range->first, 8U);
  EXPECT_EQ(range->last, 15U);
  EXPECT_EQ(range->size, 100U);
  EXPECT_EQ(parse_content_range("bytes */0")->size, 0U);
  EXPECT_FALSE(parse_content_range("bytes 8-15/*")->size);
  for (const char* text : {"", "bytes", "bytes 8-/9", "bytes 9-8/10", "bytes -1-2/3", "items 1-2/3",
                           "bytes 1-2/x", "bytes 1-99999999999999999999/*"}) {
    EXPECT_FALSE(parse_content_range(text)) << text;
  }
}

TEST(Response, a_server_asks_for_time_in_seconds_or_by_date) {
  using std::chrono::seconds;
  EXPECT_EQ(retry_after(head_of({"Retry-After: 7"}), 0), seconds(7));
  EXPECT_EQ(retry_after(head_of({"Retry-After: Thu, 01 Jan 1970 00:00:30 GMT"}), 10), seconds(20));
  EXPECT_EQ(retry_after(head_of({"Retry-After: Thu, 01 Jan 1970 00:00:30 GMT"}), 90), seconds(0));
  EXPECT_FALSE(retry_after(head_of({"Retry-After: soon"}), 0));
}

TEST(Response, a_refusal_names_the_servers_code_and_request_id) {
  EXPECT_EQ(describe_refusal(head_of({"HTTP/1.1 403 x", "x-amz-request-id: R1"}),
                             "<Error><Code>AccessDenied</Code><Message>No &lt;entry&gt;</Message>"),
            "403 Forbidden: AccessDenied: No <entry> (request id R1)");
  EXPECT_EQ(describe_refusal(head_of({"HTTP/1.1 404 x"}), R"({"error": "not\u0020there"})"),
            "404 Not Found: not\\u0020there");
  EXPECT_EQ(describe_refusal(head_of({"HTTP/1.1 404 x"}), "<Code><![CDATA[No<Such>]]></Code>"),
            "404 Not Found: No<Such>");
  EXPECT_EQ(describe_refusal(head_of({"HTTP/1.1 418 x"}), "<html>"), "418");
  const std::string hostile = "<Code>\x1b[2J\r\nX</Code>" + std::string(5000, 'x');
  const std::string text = describe_refusal(head_of({"HTTP/1.1 400 x"}), hostile);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_LT(text.size(), 400U);
}

TEST(Listing, of_s3_leaves_out_strangers_and_what_is_no_file) {
  const auto page = parse_s3_page(
      "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
      "<NextContinuationToken>t&amp;1</NextContinuationToken>"
      "<Contents><Key>m/a+b%2B.bin</Key><Size>7</Size></Contents>"
      "<Contents><Key>m/</Key><Size>0</Size></Contents>"
      "<Contents><Key>m/..</Key><Size>1</Size></Contents>"
      "<Contents><Key>m/..%2F..%2Fetc</Key><Size>1</Size></Contents>"
      "<Contents><Key>other/x</Key><Size>1</Size></Contents></ListBucketResult>",
      "m/");
  EXPECT_EQ(page.names, std::vector<std::string>{"a b+.bin"});
  EXPECT_EQ(page.next, "t&1");
}

TEST(Listing, that_is_none_is_an_error) {
  EXPECT_THROW(parse_s3_page("<html>", ""), Error);
  EXPECT_THROW(parse_s3_page("<ListBucketResult><Contents><Key>a</Key>", ""), Error);
  EXPECT_THROW(parse_s3_page("<ListBucketResult><IsTruncated>true</IsTruncated>", ""), Error);
  EXPECT_THROW(parse_s3_page("<ListBucketResult><Contents><Key>a</Key></Contents>", ""), Error);
  EXPECT_THROW(parse_s3_page("<ListBucketResult><EncodingType>url</EncodingType><Contents>"
                             "<Key>a%zz</Key></Contents></ListBucketResult>",
                             ""),
               Error);
  EXPECT_TRUE(parse_s3_page("<ListBucketResult xmlns=\"x\"/>", "").names.empty());
  EXPECT_THROW(parse_az_page("<html>", ""), Error);
  EXPECT_THROW(parse_az_page("<EnumerationResults><Blobs>", ""), Error);
}

TEST(Listing, of_azure) {
  const auto page = parse_az_page(
      "<EnumerationResults><Blobs><Blob><Name>m/a</Name><Properties><Content-Length>3"
      "</Content-Length></Properties></Blob><BlobPrefix><Name>m/sub/</Name></BlobPrefix></Blobs>"
      "<NextMarker>n</NextMarker></EnumerationResults>",
      "m/");
  EXPECT_EQ(page.names, std::vector<std::string>{"a"});
  EXPECT_EQ(page.next, "n");
}

}  // namespace
}  // namespace inrush
