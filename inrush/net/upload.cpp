#include "inrush/net/upload.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <list>
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
constexpr uint64_t kSmall = kMiB;  // goes in one request, at the end, and is kept until then
constexpr uint32_t kWidth = 4;     // parts on their way

class UploadWriter final : public Writer {
 public:
  UploadWriter(std::string name, std::unique_ptr<Upload> upload, const UploadLimits& limits)
      : name_(std::move(name)), upload_(std::move(upload)), limits_(limits) {}

  ~UploadWriter() override { abort(); }
  UploadWriter(const UploadWriter&) = delete;
  UploadWriter& operator=(const UploadWriter&) = delete;

  [[nodiscard]] WriterTraits traits() const override {
    WriterTraits traits;
    traits.random = false;
    traits.first_part_last = false;
    return traits;
  }

  void create(uint64_t size) override {
    if (size > limits_.largest) {
      throw Error(ErrorCode::source,
                  fmt::format("save {}: {} bytes are more than an object may have", name_, size));
    }
    size_ = size;
    part_size_ = std::max(kUsualPart, align_up(size / (limits_.most_parts - 1) + 1, kMiB));
    created_ = true;
    if (size <= kSmall) return;
    upload_->begin();
    in_parts_ = true;
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
      if (in_parts_ && (part_.size() == part_size_ || written_ == size_)) send_part();
    }
    // Who finishes several objects at the end shall know by then that all of them have arrived.
    if (in_parts_ && written_ == size_) settle();
  }

  void finish() override {
    if (!created_ || written_ < size_) {
      throw Error(ErrorCode::usage,
                  fmt::format("save {}: {} of {} bytes were written", name_, written_, size_));
    }
    if (in_parts_) {
      upload_->complete(sent_);
    } else {
      upload_->whole(part_);
    }
    done_ = true;
  }

  void abort() noexcept override {
    if (done_) return;
    done_ = true;
    stopping_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    try {
      if (in_parts_) upload_->discard();
    } catch (const std::exception&) {
      // The server is not there: nobody can do it.
    }
  }

 private:
  void send_part() {
    const size_t number = ++parts_;
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [this] { return flying_ < kWidth || error_; });
      if (error_) throw Error(*error_);
      ++flying_;
    }
    threads_.push_back(start_thread(
        "uploads a part", [this, number, part = std::exchange(part_, {})] { send(number, part); }));
    while (threads_.size() > kWidth) {
      threads_.front().join();
      threads_.pop_front();
    }
    part_.reserve(std::min(part_size_, size_ - written_));
  }

  void send(size_t number, const std::string& part) {
    std::optional<Error> error;
    std::string token;
    try {
      if (!stopping_) token = upload_->part(number, part);
    } catch (const Error& one) {
      error = one;
    } catch (const std::exception& one) {
      error = Error(ErrorCode::memory, one.what());
    }
    const std::lock_guard lock(mutex_);
    --flying_;
    if (error && !error_) error_ = error;
    sent_[number] = token;
    room_.notify_all();
  }

  void settle() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    if (error_) throw Error(*error_);
  }

  std::string name_;
  std::unique_ptr<Upload> upload_;
  UploadLimits limits_;
  uint64_t size_ = 0;
  uint64_t part_size_ = kUsualPart;
  uint64_t written_ = 0;
  bool created_ = false;
  bool in_parts_ = false;
  bool done_ = false;
  std::string part_;
  size_t parts_ = 0;
  std::list<std::thread> threads_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable room_;
  uint32_t flying_ = 0;
  std::optional<Error> error_;
  std::map<size_t, std::string> sent_;
};

}  // namespace

std::unique_ptr<Writer> make_upload_writer(const std::string& name, std::unique_ptr<Upload> upload,
                                           const UploadLimits& limits) {
  return std::make_unique<UploadWriter>(name, std::move(upload), limits);
}

}  // namespace inrush
