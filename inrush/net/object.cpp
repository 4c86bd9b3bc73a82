#include "inrush/net/object.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "inrush/core/error.h"
#include "inrush/net/backoff.h"
#include "inrush/net/transfer.h"

namespace inrush {
namespace {

// Headers of checkpoints mostly fit: opening and indexing a shard is one round trip then.
constexpr uint64_t kFirstLook = 256 << 10;
constexpr int kMostRedirects = 10;

// One request, by somebody who waits for it.
struct Look {
  const Client& client;
  Url url;
  std::string what;
  Backoff backoff;
  int redirects = 0;

  // What to do about it: true to ask again. Throws Error.
  bool again(const Verdict& verdict) {
    if (verdict.kind == Verdict::Kind::redirect && ++redirects <= kMostRedirects) {
      url = verdict.location;
      return true;
    }
    const bool hopeless = verdict.nobody_there && backoff.tries() >= Backoff::kFewTries;
    if (verdict.kind == Verdict::Kind::again && !hopeless) {
      if (const auto when = backoff.next(Clock::now(), verdict.pause)) {
        std::this_thread::sleep_until(*when);
        return true;
      }
    }
    const std::string reason =
        verdict.kind == Verdict::Kind::redirect ? "it is redirected in circles" : verdict.reason;
    if (verdict.no_parts) throw NoParts(verdict.code, fmt::format("{}: {}", what, reason));
    throw Error(verdict.code, backoff.tries() > 1 ? fmt::format("{}: {} (after {} tries)", what,
                                                                reason, backoff.tries())
                                                  : fmt::format("{}: {}", what, reason));
  }
};

bool is_empty(const ResponseHead& head) {
  if (head.status == 200) return head.header("content-length") == "0";
  const auto range = parse_content_range(head.header("content-range"));
  return head.status == 416 && range && range->size == 0;
}

std::shared_ptr<HttpObject> object_for(const std::shared_ptr<const Client>& client,
                                       const HomeContent& content) {
  auto object = std::make_shared<HttpObject>();
  object->client = client;
  object->home = content.url;
  object->name = content.name;
  object->identity = content.identity.value_or(Identity{});
  object->immutable = content.identity.has_value();
  return object;
}

Blob blob_of(const std::shared_ptr<HttpObject>& object, const Url& url) {
  Blob blob;
  blob.name = object->name;
  blob.size = object->identity.size;
  blob.identity = object->identity;
  blob.engine = "http";
  blob.path = url.origin();
  blob.handle = object;
  return blob;
}

// The content's size from the answer to the first look, of which so much was received.
uint64_t size_from(const ResponseHead& answer, uint64_t received, const std::string& what) {
  if (is_empty(answer)) return 0;
  const auto range = parse_content_range(answer.header("content-range"));
  if (range && !range->size) {
    throw Error(ErrorCode::source, what + ": the server does not say how large it is");
  }
  const uint64_t size = range ? *range->size : received;
  if (received < std::min(size, kFirstLook)) {
    throw Error(ErrorCode::data,
                fmt::format("{}: the server sent {} bytes of {}", what, received, size));
  }
  return size;
}

}  // namespace

size_t HttpObject::copy_head(uint64_t offset, std::span<std::byte> target) const {
  const std::lock_guard lock(mutex);
  if (offset >= head.size()) return 0;
  const size_t count = std::min<size_t>(target.size(), head.size() - offset);
  std::memcpy(target.data(), head.data() + offset, count);
  return count;
}

Identity HttpObject::expected() const {
  if (!immutable) return identity;
  const std::lock_guard lock(mutex);
  Identity there;
  there.size = identity.size;
  there.etag = etag_there;
  return there;
}

void HttpObject::learn(const ResponseHead& answer) const {
  if (!immutable) return;
  const std::lock_guard lock(mutex);
  if (etag_there.empty()) etag_there = answer.identity(identity.size).etag;
}

HttpRequest range_request(const HttpObject& object, const Url& url, uint64_t offset,
                          uint64_t size) {
  HttpRequest request;
  request.url = url;
  request.headers.emplace_back("Range", fmt::format("bytes={}-{}", offset, offset + size - 1));
  const Identity expected = object.expected();
  const std::string& etag = expected.etag;
  // A weak ETag must not be sent so; it is compared in the answer.
  if (etag.starts_with('"')) {
    request.headers.emplace_back("If-Match", etag);
  } else if (etag.ends_with(" GMT")) {
    request.headers.emplace_back("If-Unmodified-Since", etag);
  }
  object.client->sign(request, object.home);
  return request;
}

Blob unseen_object(const std::shared_ptr<const Client>& client, const HomeContent& content) {
  return blob_of(object_for(client, content), content.url);
}

Blob open_object(const std::shared_ptr<const Client>& client, const HomeContent& content) {
  const auto object = object_for(client, content);
  std::vector<std::byte> head(kFirstLook);
  Look look{*client, content.url, "open " + content.name, Backoff(client->options().patience)};
  for (;;) {
    const HttpRequest request = range_request(*object, look.url, 0, kFirstLook);
    Transfer transfer(client->borrow());
    transfer.prepare_range(request, {0, kFirstLook}, head.data());
    if (look.redirects > 0) transfer.distrust();
    const Verdict verdict = transfer.verdict(load_curl().easy_perform(transfer.easy()));
    const ResponseHead answer = transfer.head();
    const uint64_t received = transfer.received();
    client->give_back(transfer.release());
    if (verdict.kind != Verdict::Kind::done && !is_empty(answer)) {
      look.again(verdict);
      continue;
    }
    const uint64_t size = size_from(answer, received, look.what);
    if (object->immutable && size != object->identity.size) {
      throw Error(ErrorCode::data, fmt::format("{}: it has {} bytes, not {}", look.what, size,
                                               object->identity.size));
    }
    head.resize(received);
    head.shrink_to_fit();
    object->head = std::move(head);
    if (look.redirects > 0) object->move_to(look.url);
    object->learn(answer);
    if (!object->immutable) object->identity = answer.identity(size);
    return blob_of(object, look.url);
  }
}

bool object_exists(const Client& client, const Url& url) {
  HttpRequest request;
  request.method = "HEAD";
  request.url = url;
  const Answer answer =
      client.ask(request, {.what = "open " + shown_url(url), .welcome = {200, 206, 403, 404, 410}});
  return answer.head.status < 400;
}

const HttpObject& object_of(const Blob& blob) {
  if (blob.engine != "http" || blob.handle == nullptr) {
    throw Error(ErrorCode::usage, fmt::format("{} is no content of an HTTP server", blob.name));
  }
  return *static_cast<const HttpObject*>(blob.handle.get());
}

void read_object(const Blob& blob, uint64_t offset, std::span<std::byte> target) {
  const HttpObject& object = object_of(blob);
  const std::string what = fmt::format("read {} [{}, +{})", blob.name, offset, target.size());
  if (target.size() > blob.size || offset > blob.size - target.size()) {
    throw Error(ErrorCode::data, fmt::format("{}: the file ends at byte {}", what, blob.size));
  }
  const size_t copied = object.copy_head(offset, target);
  target = target.subspan(copied);
  offset += copied;
  Look look{*object.client, object.url(), what, Backoff(object.client->options().patience)};
  bool went_home = false;
  while (!target.empty()) {
    const HttpRequest request = range_request(object, look.url, offset, target.size());
    Transfer transfer(object.client->borrow());
    transfer.prepare_range(request, {offset, target.size(), object.expected()}, target.data());
    if (look.url.origin() != object.home.origin()) transfer.distrust();
    const Verdict verdict = transfer.verdict(load_curl().easy_perform(transfer.easy()));
    const uint64_t received = transfer.received();
    if (verdict.kind == Verdict::Kind::done) object.learn(transfer.head());
    object.client->give_back(transfer.release());
    target = target.subspan(received);
    offset += received;
    if (received > 0) look.backoff.progressed(Clock::now());
    if (verdict.kind == Verdict::Kind::done) continue;
    // What it was redirected to may have expired.
    if (verdict.kind == Verdict::Kind::failed && look.url.text() != object.home.text() &&
        !std::exchange(went_home, true)) {
      look.url = object.home;
      object.move_to(object.home);
      continue;
    }
    look.again(verdict);
    object.move_to(look.url);
  }
}

}  // namespace inrush
