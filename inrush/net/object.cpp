#include "inrush/net/object.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "inrush/base/fd.h"
#include "inrush/base/read_fully.h"
#include "inrush/base/write_fully.h"
#include "inrush/core/error.h"
#include "inrush/net/attempts.h"
#include "inrush/net/transfer.h"

namespace inrush {
namespace {

// Headers of checkpoints mostly fit, and the 256 KiB of tensorizer's with what is before them:
// opening and indexing a shard is one round trip then.
constexpr uint64_t kFirstLook = 260 << 10;

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
  const Url& home = object->home;
  if (!object->name.starts_with(home.scheme + "://")) blob.apart = home.origin();
  const std::string query = unsigned_query(home.query);
  if (!query.empty()) blob.apart += "?" + query;
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

// What S3 says of the whole. A server that will not answer has none.
std::optional<KnownSum> ask_sum(const HttpObject& object) {
  HttpRequest request;
  request.method = "HEAD";
  request.url = object.home;  // and not where it was redirected to, which gets no credentials
  request.headers.emplace_back("x-amz-checksum-mode", "ENABLED");
  std::vector<int> any{200, 400, 401, 403, 404, 405, 412, 416, 500, 501, 502, 503};
  try {
    const Answer answer = object.client->ask(
        request, {.what = "ask for the checksum of " + object.name, .welcome = std::move(any)});
    const bool same = answer.head.header("etag") == object.identity.etag;
    return answer.head.status == 200 && same ? known_sum(answer.head) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// The content as a file in memory: a transfer that breaks off begins anew.
Blob fetch_whole(const std::shared_ptr<const Client>& client, const HomeContent& content) {
  Attempts attempts("open " + content.name, content.url, client->options().patience);
  for (;;) {
    const auto fd = std::make_shared<const Fd>(::memfd_create("inrush", MFD_CLOEXEC));
    uint64_t size = 0;
    if (!*fd) throw system_error(ErrorCode::memory, attempts.what(), errno);
    HttpRequest request;
    request.url = attempts.url();
    client->sign(request, content.url);
    Transfer transfer(client->borrow());
    transfer.prepare_whole(request, [&](std::span<const char> bytes) -> std::string {
      const int error = write_fully(fd->get(), size, std::as_bytes(bytes));
      if (error != 0) return fmt::format("it cannot be kept in memory: {}", std::strerror(error));
      size += bytes.size();
      return "";
    });
    if (attempts.redirected()) transfer.distrust();
    const Verdict verdict = transfer.verdict(load_curl().easy_perform(transfer.easy()));
    const ResponseHead answer = transfer.head();
    client->give_back(transfer.release());
    if (verdict.kind != Verdict::Kind::done) {
      attempts.wait(verdict);
      continue;
    }
    Blob blob;
    blob.name = content.name;
    blob.size = size;
    blob.identity = answer.identity(blob.size);
    blob.fd = fd->get();
    blob.handle = fd;
    return blob;
  }
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
  Attempts attempts("open " + content.name, content.url, client->options().patience);
  for (;;) {
    const HttpRequest request = range_request(*object, attempts.url(), 0, kFirstLook);
    Transfer transfer(client->borrow());
    transfer.prepare_range(request, {0, kFirstLook}, head.data());
    if (attempts.redirected()) transfer.distrust();
    const Verdict verdict = transfer.verdict(load_curl().easy_perform(transfer.easy()));
    const ResponseHead answer = transfer.head();
    const uint64_t received = transfer.received();
    client->give_back(transfer.release());
    if (verdict.no_parts && client->options().whole) return fetch_whole(client, content);
    if (verdict.kind != Verdict::Kind::done && !is_empty(answer)) {
      attempts.wait(verdict);
      continue;
    }
    const uint64_t size = size_from(answer, received, attempts.what());
    if (object->immutable && size != object->identity.size) {
      throw Error(ErrorCode::data, fmt::format("{}: it has {} bytes, not {}", attempts.what(), size,
                                               object->identity.size));
    }
    head.resize(received);
    head.shrink_to_fit();
    object->head = std::move(head);
    if (attempts.redirected()) object->move_to(attempts.url());
    object->learn(answer);
    object->said = answer.headers;
    if (!object->immutable) object->identity = answer.identity(size);
    const auto known = content.asks_sum ? ask_sum(*object) : known_sum(answer);
    if (known && size > 0) object->sum = std::make_unique<ContentSum>(*known, size);
    return blob_of(object, attempts.url());
  }
}

ResponseHead look_for_object(const Client& client, const Url& url) {
  HttpRequest request;
  request.method = "HEAD";
  request.url = url;
  return client
      .ask(request, {.what = "open " + shown_url(url), .welcome = {200, 206, 403, 404, 410}})
      .head;
}

const HttpObject& object_of(const Blob& blob) {
  if (blob.engine != "http" || blob.handle == nullptr) {
    throw Error(ErrorCode::usage, fmt::format("{} is no content of an HTTP server", blob.name));
  }
  return *static_cast<const HttpObject*>(blob.handle.get());
}

Identity identity_of_object(const Blob& blob) {
  return blob.fd >= 0 ? blob.identity : object_of(blob).identity;
}

void read_object(const Blob& blob, uint64_t offset, std::span<std::byte> target) {
  if (blob.fd >= 0) return read_fully(blob.fd, offset, target, blob.name);
  const HttpObject& object = object_of(blob);
  const std::string what = fmt::format("read {} [{}, +{})", blob.name, offset, target.size());
  if (target.size() > blob.size || offset > blob.size - target.size()) {
    throw Error(ErrorCode::data, fmt::format("{}: the file ends at byte {}", what, blob.size));
  }
  const size_t copied = object.copy_head(offset, target);
  target = target.subspan(copied);
  offset += copied;
  const std::span<std::byte> fetched = target;
  const uint64_t fetched_at = offset;
  Attempts attempts(what, object.home, object.client->options().patience);
  attempts.begin_at(object.url());
  while (!target.empty()) {
    const HttpRequest request = range_request(object, attempts.url(), offset, target.size());
    Transfer transfer(object.client->borrow());
    transfer.prepare_range(request, {offset, target.size(), object.expected()}, target.data());
    if (attempts.url().origin() != object.home.origin()) transfer.distrust();
    const Verdict verdict = transfer.verdict(load_curl().easy_perform(transfer.easy()));
    const uint64_t received = transfer.received();
    if (verdict.kind == Verdict::Kind::done) object.learn(transfer.head());
    object.client->give_back(transfer.release());
    target = target.subspan(received);
    offset += received;
    if (received > 0) attempts.progressed(Clock::now());
    if (verdict.kind == Verdict::Kind::done) continue;
    attempts.wait(verdict);
    object.move_to(attempts.url());
  }
  if (!object.sum) return;
  try {
    object.sum->add(fetched_at, fetched);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", what, error.message()));
  }
}

}  // namespace inrush
