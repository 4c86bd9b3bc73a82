// https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
#include <fmt/format.h>

#include <utility>

#include "inrush/core/error.h"
#include "inrush/net/upload.h"

namespace inrush {
namespace {

Url object_url(const S3Bucket& bucket, const std::string& key) {
  Url url = bucket.base;
  url.path += percent_encoded(key, true);
  return url;
}

class S3Upload final : public Upload {
 public:
  S3Upload(S3Bucket bucket, const std::string& key)
      : bucket_(std::move(bucket)),
        key_(key),
        name_(bucket_.shown + key),
        url_(object_url(bucket_, key)) {}

  void whole(std::string_view body) override { ask_first("PUT", "", body); }

  void begin() override {
    id_ = xml_text(ask_first("POST", "uploads=", "").body, "UploadId");
    if (id_.empty()) fail("the server began no upload");
  }

  std::string part(size_t number, std::string_view body) override {
    const std::string query = fmt::format("partNumber={}&{}", number, its_id());
    std::string etag = ask("PUT", query, body).head.header("etag");
    if (etag.empty()) fail("a part without an ETag");
    return etag;
  }

  void complete(const std::map<size_t, std::string>& parts) override {
    std::string body = "<CompleteMultipartUpload>";
    for (const auto& [number, etag] : parts) {
      body += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", number, etag);
    }
    body += "</CompleteMultipartUpload>";
    const Answer answer = ask("POST", its_id(), body);
    // The status is sent before the work is done, so a failure comes as 200 and a body.
    if (answer.body.find("<Error>") != std::string::npos) {
      fail(describe_refusal(answer.head, answer.body));
    }
  }

  void discard() override {
    bucket_.client->ask(request("DELETE", its_id()),
                        {.what = "abort " + name_, .welcome = {200, 204, 404}});
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw Error(ErrorCode::source, fmt::format("save {}: {}", name_, why));
  }

  [[nodiscard]] std::string its_id() const { return "uploadId=" + percent_encoded(id_, false); }

  [[nodiscard]] HttpRequest request(const char* method, const std::string& query) const {
    HttpRequest request;
    request.method = method;
    request.url = url_;
    request.url.query = query;
    return request;
  }

  Answer ask(const char* method, const std::string& query, std::string_view body) const {
    HttpRequest asked = request(method, query);
    asked.body = body;
    return bucket_.client->ask(asked, {.what = "save " + name_, .welcome = {200}});
  }

  // The first request finds out where the bucket is.
  Answer ask_first(const char* method, const std::string& query, std::string_view body) {
    try {
      return ask(method, query, body);
    } catch (const Error&) {
      if (!relocate_s3(bucket_, bucket_.base)) throw;
    }
    url_ = object_url(bucket_, key_);
    return ask(method, query, body);
  }

  S3Bucket bucket_;
  std::string key_;
  std::string name_;
  Url url_;
  std::string id_;
};

}  // namespace

std::unique_ptr<Writer> make_s3_writer(S3Bucket bucket, const std::string& key) {
  const std::string name = bucket.shown + key;
  return make_upload_writer(name, std::make_unique<S3Upload>(std::move(bucket), key), {});
}

void remove_s3_object(const S3Bucket& bucket, const std::string& key) {
  HttpRequest request;
  request.method = "DELETE";
  request.url = object_url(bucket, key);
  bucket.client->ask(
      request, {.what = fmt::format("remove {}{}", bucket.shown, key), .welcome = {200, 204, 404}});
}

}  // namespace inrush
