#include "inrush/net/s3_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/thread.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr uint64_t kUsualPart = 16 * kMiB;
constexpr uint64_t kMostParts = 10'000;  // that S3 allows
constexpr uint64_t kLargest = 5ULL << 40;
constexpr uint32_t kWidth = 4;  // parts on their way

class S3Writer final : public Writer {
 public:
  S3Writer(S3Bucket bucket, const std::string& key)
      : bucket_(std::move(bucket)), name_(bucket_.shown + key), url_(bucket_.base) {
    url_.path += percent_encoded(key, true);
  }

  ~S3Writer() override { abort(); }
  S3Writer(const S3Writer&) = delete;
  S3Writer& operator=(const S3Writer&) = delete;

  [[nodiscard]] WriterTraits traits() const override {
    WriterTraits traits;
    traits.random = false;
    traits.first_part_last = false;
    return traits;
  }

  void create(uint64_t size) override {
    if (size > kLargest) {
      throw Error(ErrorCode::source,
                  fmt::format("save {}: {} bytes are more than an object may have", name_, size));
    }
    size_ = size;
    part_size_ = std::max(kUsualPart, align_up(size / (kMostParts - 1) + 1, kMiB));
    created_ = true;
    if (size <= part_size_) return;
    const Answer answer = ask("POST", "uploads=", "");
    upload_ = xml_text(answer.body, "UploadId");
    if (upload_.empty()) fail("the server began no upload");
  }

  void write(uint64_t offset, std::span<const std::byte> data) override {
    if (!created_ || offset != written_ || data.size() > size_ - written_) {
      throw Error(ErrorCode::usage,
                  fmt::format("save {} [{}, +{}): it is written from its first byte on to {}",
                              name_, offset, data.size(), size_));
    }
    while (!data.empty()) {
      const size_t count = std::min<uint64_t>(data.size(), part_size_ - part_.size());
      part_.append(reinterpret_cast<const char*>(data.data()), count);
      data = data.subspan(count);
      written_ += count;
      if (part_.size() == part_size_ && !upload_.empty()) send_part();
    }
  }

  void finish() override {
    if (!created_ || written_ < size_) {
      throw Error(ErrorCode::usage,
                  fmt::format("save {}: {} of {} bytes were written", name_, written_, size_));
    }
    if (upload_.empty()) {
      ask("PUT", "", part_);
    } else {
      if (!part_.empty()) send_part();
      settle();
      complete();
    }
    done_ = true;
  }

  // Parts that are left cost their owner money, and are seen by nobody else.
  void abort() noexcept override {
    if (done_) return;
    done_ = true;
    try {
      stopping_ = true;
      for (std::thread& thread : threads_) thread.join();
      threads_.clear();
      if (!upload_.empty()) {
        HttpRequest request = request_of("DELETE", "uploadId=" + percent_encoded(upload_, false));
        bucket_.client->ask(request, {.what = "abort " + name_, .welcome = {200, 204, 404}});
      }
    } catch (const std::exception&) {
      // The server is not there: nobody can do it.
    }
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw Error(ErrorCode::source, fmt::format("save {}: {}", name_, why));
  }

  [[nodiscard]] HttpRequest request_of(const char* method, const std::string& query) const {
    HttpRequest request;
    request.method = method;
    request.url = url_;
    request.url.query = query;
    return request;
  }

  Answer ask(const char* method, const std::string& query, std::string_view body) const {
    HttpRequest request = request_of(method, query);
    request.body = body;
    return bucket_.client->ask(request, {.what = "save " + name_, .welcome = {200}});
  }

  void send_part() {
    const size_t number = ++parts_;
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [this] { return flying_ < kWidth || error_; });
      if (error_) throw Error(*error_);
      ++flying_;
    }
    threads_.push_back(
        start_thread("uploads a part",
                     [this, number, part = std::exchange(part_, {})] { upload(number, part); }));
    while (threads_.size() > kWidth) {
      threads_.front().join();
      threads_.pop_front();
    }
    part_.reserve(part_size_);
  }

  void upload(size_t number, const std::string& part) {
    std::optional<Error> error;
    std::string etag;
    try {
      const std::string query =
          fmt::format("partNumber={}&uploadId={}", number, percent_encoded(upload_, false));
      if (!stopping_) etag = ask("PUT", query, part).head.header("etag");
      if (etag.empty()) error = Error(ErrorCode::source, fmt::format("save {}: no ETag", name_));
    } catch (const Error& one) {
      error = one;
    } catch (const std::exception& one) {
      error = Error(ErrorCode::memory, one.what());
    }
    const std::lock_guard lock(mutex_);
    --flying_;
    if (error && !error_) error_ = error;
    etags_[number] = etag;
    room_.notify_all();
  }

  void settle() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    if (error_) throw Error(*error_);
  }

  void complete() {
    std::string body = "<CompleteMultipartUpload>";
    for (const auto& [number, etag] : etags_) {
      body += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", number, etag);
    }
    body += "</CompleteMultipartUpload>";
    const Answer answer = ask("POST", "uploadId=" + percent_encoded(upload_, false), body);
    // The status is sent before the work is done, so a failure comes as 200 and a body.
    if (answer.body.find("<Error>") != std::string::npos) {
      fail(fmt::format("{}: {}", xml_text(answer.body, "Code"), xml_text(answer.body, "Message")));
    }
  }

  S3Bucket bucket_;
  std::string name_;
  Url url_;
  uint64_t size_ = 0;
  uint64_t part_size_ = kUsualPart;
  uint64_t written_ = 0;
  bool created_ = false;
  bool done_ = false;
  std::string upload_;
  std::string part_;
  size_t parts_ = 0;
  std::list<std::thread> threads_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable room_;
  uint32_t flying_ = 0;
  std::optional<Error> error_;
  std::map<size_t, std::string> etags_;
};

}  // namespace

std::unique_ptr<Writer> make_s3_writer(S3Bucket bucket, const std::string& key) {
  return std::make_unique<S3Writer>(std::move(bucket), key);
}

}  // namespace inrush
