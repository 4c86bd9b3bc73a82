// One request on its way: an easy handle of libcurl, the response's head, and where the body goes.
// It checks everything that the server says before a byte of the body is let through. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "inrush/core/error.h"
#include "inrush/net/client.h"

namespace inrush {

// What is wanted: bytes [offset, offset + size) of a content of this identity.
struct Wanted {
  uint64_t offset = 0;
  uint64_t size = 0;
  std::optional<Identity> identity{};  // to be found unchanged; none: whatever is there
};

// What became of it.
struct Verdict {
  enum class Kind : uint8_t { done, redirect, again, failed };
  Kind kind = Kind::done;
  ErrorCode code = ErrorCode::source;
  std::string reason;  // "403 Forbidden: AccessDenied"
  std::optional<std::chrono::milliseconds> pause;
  Url location;               // of a redirect
  bool nobody_there = false;  // no such name, no connection: rarely worth more than a few tries
  bool no_parts = false;      // the server sends it as a whole, or coded
};

// A server that has the content, but gives no parts of it.
class NoParts final : public Error {
 public:
  using Error::Error;
};

class Transfer {
 public:
  explicit Transfer(EasyHandle easy);
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Sets the handle up for a part of a content, whose bytes go straight to `target`.
  void prepare_range(const HttpRequest& request, const Wanted& wanted, std::byte* target);

  // Sets it up for a body of any size up to `most` bytes, kept in text().
  void prepare_text(const HttpRequest& request, uint64_t most, std::vector<int> welcome);

  // Sets it up for a content of any size; `put` takes its bytes in order, or returns why it cannot.
  void prepare_whole(const HttpRequest& request,
                     std::function<std::string(std::span<const char>)> put);

  // Of a redirected request: link-local hosts are refused, and the connection is a new one.
  void distrust();
  void use_fresh_connection();

  [[nodiscard]] Verdict verdict(CURLcode code) const;

  [[nodiscard]] CURL* easy() const { return easy_.get(); }
  [[nodiscard]] const ResponseHead& head() const { return head_; }
  [[nodiscard]] const std::string& text() const { return text_; }
  std::string& text() { return text_; }
  // Bytes of the body that have reached the target.
  [[nodiscard]] uint64_t received() const { return received_; }
  // Bytes of any kind, the head's too: a sign of life.
  [[nodiscard]] uint64_t heard() const { return heard_; }
  // Takes the handle back, for the next request.
  EasyHandle release();

  // Asked before bytes of the body are let through, where it is set; false ends the transfer.
  std::function<bool()> gate;

 private:
  static size_t on_header(char* data, size_t size, size_t count, void* self);
  static size_t on_body(char* data, size_t size, size_t count, void* self);
  static curl_socket_t open_socket(void* self, curlsocktype purpose, curl_sockaddr* address);

  void prepare(const HttpRequest& request);
  void set_method(const HttpRequest& request);
  bool take(std::span<const char> bytes);
  bool fail(ErrorCode code, std::string reason, bool no_parts = false);
  // Whether the head promises what is wanted; else says why in failure_.
  bool judge_head();
  bool judge_whole();
  bool judge_range();
  [[nodiscard]] bool is_welcome() const;
  [[nodiscard]] Verdict judge_status() const;
  [[nodiscard]] std::string refusal() const;
  [[nodiscard]] std::optional<Verdict> judge_tunnel() const;

  const Curl& curl_;
  EasyHandle easy_;
  curl_slist* headers_ = nullptr;
  std::array<char, CURL_ERROR_SIZE> trouble_{};
  ResponseHead head_;
  Url url_;
  std::optional<Wanted> wanted_;
  std::byte* target_ = nullptr;
  uint64_t most_text_ = 0;
  std::vector<int> welcome_;
  std::string text_;
  uint64_t received_ = 0;
  uint64_t heard_ = 0;
  bool judged_ = false;
  std::optional<Verdict> failure_;
  std::function<std::string(std::span<const char>)> put_;  // of a content of any size
};

// What a redirect may lead to: https never to http, no host that only this link reaches, nothing
// but HTTP. Returns why not, or nothing.
std::string why_not_follow(const Url& from, const Url& to);

}  // namespace inrush
