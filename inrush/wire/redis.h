// What the Redis store, engine and writer share: where a server is, a connection to it that asks
// and waits, and how a file lies in its keys.
//
// A file under the key K is what tensorizer writes: strings called K:<name>:<offset>, each the
// file's bytes from that offset on (decimal, its last part); together they have no hole. A string
// called K itself is a file too.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "inrush/base/stream.h"
#include "inrush/core/blob.h"
#include "inrush/wire/resp.h"

namespace inrush {

struct RedisPlace {
  Endpoint endpoint;
  std::string user;
  std::string password;  // never shown
  uint32_t database = 0;
  std::string key;    // of the URI: percent-decoded, without the slash before it
  std::string shown;  // "redis://host:port": how errors name the server
  std::chrono::milliseconds patience{30'000};    // without a byte
  std::chrono::milliseconds connecting{10'000};  // until there is a connection
};

// redis://[[user]:password@]host[:port]/key[?db=N][&ssl_ca_certs=PEM]; rediss:// for TLS. Without
// a password in it, REDISCLI_AUTH counts. Throws Error{usage}, never with the password.
RedisPlace parse_redis_uri(const std::string& uri);

// The bytes of one key in a file.
struct RedisSegment {
  std::string key;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// What Blob::handle points to.
struct RedisFile {
  RedisPlace place;
  std::vector<RedisSegment> segments;  // by offset, without holes
};

const RedisFile& redis_file(const Blob& blob);

// A key as SCAN's pattern for itself.
std::string redis_pattern(std::string_view key);

// The offset in "K:<name>:<offset>"; nothing for a key of another make.
std::optional<uint64_t> redis_offset(std::string_view key);

// Part of a read: bytes of one key.
struct RedisPart {
  const RedisSegment* segment = nullptr;
  uint64_t begin = 0;  // in the key's value
  uint64_t size = 0;
};

// The parts of [offset, +size), which lies in the file, in order.
std::vector<RedisPart> parts_of(const RedisFile& file, uint64_t offset, uint64_t size);

// Appends the command that asks for a part; its reply is a bulk string of part.size bytes.
void append_get(std::string& out, const RedisPart& part);

// A connection that is logged in and on its database. One thread.
class RedisConnection {
 public:
  // Throws Error{source}: not reachable, the password is wrong, the database is not there.
  RedisConnection(const RedisPlace& place, const std::string& what);

  // Sends commands that append() wrote and waits for as many replies. An error reply is returned
  // like any other. Throws Error{source} when the connection ends, or gives nothing for 30 s.
  std::vector<resp::Reply> ask(std::string_view commands, size_t count);

  // One command; an error reply is thrown: "<what>: <the server's words>".
  resp::Reply ask(const resp::Words& words);

  [[nodiscard]] Stream& stream() { return stream_; }

 private:
  void log_in(const RedisPlace& place);
  void take_replies(std::vector<resp::Reply>& replies, size_t count);

  std::string what_;
  std::chrono::milliseconds patience_;
  Stream stream_;
  std::string received_;
};

// "2.5 s"
std::string seconds_text(std::chrono::milliseconds time);

// What the server says, as an Error: "<what>: WRONGTYPE Operation ...". Our side's fault or a
// missing right is Error{source} alike.
Error redis_error(const std::string& what, const resp::Reply& reply);

}  // namespace inrush
