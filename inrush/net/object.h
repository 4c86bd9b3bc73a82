// A content that an HTTP server has, as blobs of the engine "http" hold it. Any thread.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/blob.h"
#include "inrush/net/client.h"
#include "inrush/net/content_sum.h"

namespace inrush {

struct HttpObject {
  std::shared_ptr<const Client> client;
  Url home;           // that was asked for first: what credentials are for
  std::string name;   // as errors show it
  Identity identity;  // that every part must come from
  // The URL names one content for ever. What it leads to may call it by other ETags, each of which
  // holds only there; `identity` has the home's own name of it then.
  bool immutable = false;
  std::map<std::string, std::string> said;  // headers of the first answer, names in lower case

  // Where it is by now, after redirects; they may expire, and then it is asked for at home again.
  [[nodiscard]] Url url() const {
    const std::lock_guard lock(mutex);
    return moved.host.empty() ? home : moved;
  }
  void move_to(const Url& there) const {
    const std::lock_guard lock(mutex);
    if (there.origin() != moved.origin() || there.path != moved.path) etag_there.clear();
    moved = there;
  }

  // What answers are held against, and what one that was taken says of the next ones.
  [[nodiscard]] Identity expected() const;
  void learn(const ResponseHead& answer) const;

  // Its first bytes came with the first look, and serve until it is indexed.
  [[nodiscard]] size_t copy_head(uint64_t offset, std::span<std::byte> target) const;
  void forget_head() const {
    const std::lock_guard lock(mutex);
    if (sum) sum->keep_head(std::move(head));
    head = {};
  }

  std::unique_ptr<ContentSum> sum;  // where the store has said one; set when it is opened

  mutable std::mutex mutex;  // over what follows
  mutable Url moved;
  mutable std::string etag_there;
  mutable std::vector<std::byte> head;
};

// What is known of a content before it is looked at.
struct HomeContent {
  Url url;
  std::string name;                       // as errors show it
  std::optional<Identity> identity = {};  // of an immutable one
  bool asks_sum = false;                  // in a request of its own, as S3 is asked for checksums
};

// The request for bytes [offset, +size) of it at `url`, signed, on condition that it is unchanged.
HttpRequest range_request(const HttpObject& object, const Url& url, uint64_t offset, uint64_t size);

// Looks at it for the first time. Throws Error{source} if it is not there, NoParts if it cannot be
// read in parts, unless the client's options let it come as a whole: then it lies in memory, and
// the blob has a descriptor.
Blob open_object(const std::shared_ptr<const Client>& client, const HomeContent& content);

// The blob of an immutable content, which nobody has looked at yet.
Blob unseen_object(const std::shared_ptr<const Client>& client, const HomeContent& content);

// What is said of it: a status of 403, 404 or 410 if it is not there, or not for us. Throws
// Error{source} if that cannot be found out.
ResponseHead look_for_object(const Client& client, const Url& url);

const HttpObject& object_of(const Blob& blob);

// The identity that every part of it had so far: each was asked for on condition that it is
// unchanged, and compared.
Identity identity_of_object(const Blob& blob);

// Reads exactly target.size() bytes, here and now. Throws Error.
void read_object(const Blob& blob, uint64_t offset, std::span<std::byte> target);

}  // namespace inrush
