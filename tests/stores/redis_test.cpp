// The Redis store and engine against a real redis-server; what the engines' conformance suite asks
// of files is asked here of keys.
#include "inrush/stores/redis.h"

#include <gtest/gtest.h>

#include "tests/engines/ways.h"
#include "tests/redis_server.h"

namespace inrush::testing {
namespace {

std::string_view text(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void set(RedisConnection& connection, const std::string& key, const Bytes& bytes) {
  connection.ask({"SET", key, text(bytes)});
}

// A file in keys of `part` bytes, as tensorizer names them.
void set_file(RedisConnection& connection, const std::string& key, const Bytes& bytes,
              size_t part) {
  for (size_t at = 0; at < bytes.size(); at += part) {
    const size_t size = std::min(part, bytes.size() - at);
    const std::string name = at == 0 ? "header" : "layer." + std::to_string(at % 7);
    const Bytes slice(bytes.begin() + static_cast<ptrdiff_t>(at),
                      bytes.begin() + static_cast<ptrdiff_t>(at + size));
    set(connection, key + ":" + name + ":" + std::to_string(at), slice);
  }
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.message();
  }
  return "no error";
}

class Redis : public ::testing::TestWithParam<Layer> {
 protected:
  void SetUp() override {
    connection_ = server_.connect();
    if (!connection_) GTEST_SKIP() << "redis-server is not installed";
  }

  Blob open(const std::string& key) {
    Place place = find_redis(server_.uri(key));
    store_ = std::move(place.store);
    return store_->open(place.entry);
  }

  static std::unique_ptr<Engine> make(int wake_fd = -1) {
    EngineOptions options;
    options.wake_fd = wake_fd;
    return layered(find_engine("redis")->make(options), GetParam());
  }

  RedisServer server_;
  std::unique_ptr<RedisConnection> connection_;
  std::unique_ptr<Store> store_;
};

TEST_P(Redis, reads_every_byte_in_any_order_and_size_across_keys) {
  const Bytes bytes = random_bytes(5 * kMiB + 1234, 1);
  set_file(*connection_, "m", bytes, 700'001);
  const Blob blob = open("m");
  ASSERT_EQ(blob.size, bytes.size());
  auto engine = make();
  ASSERT_EQ(engine->open(blob), 0U);
  Bytes target(bytes.size());
  const Outcome outcome = drive(*engine, shredded(engine->traits(), blob, target.data()));
  for (const auto& [read, error] : outcome.failed) ADD_FAILURE() << error.what();
  EXPECT_EQ(target, bytes);
}

TEST_P(Redis, a_key_by_itself_is_a_file) {
  const Bytes bytes = random_bytes(300'001, 2);
  set(*connection_, "a b", bytes);
  const Blob blob = open("a%20b");
  Bytes target(bytes.size());
  store_->read(blob, 0, target);
  EXPECT_EQ(target, bytes);
  auto engine = make();
  engine->open(blob);
  Bytes again(bytes.size());
  const Read read{.tag = 1, .size = 400'000, .required = bytes.size(), .target = again.data()};
  EXPECT_TRUE(drive(*engine, {read}).failed.empty());
  EXPECT_EQ(again, bytes);
}

TEST_P(Redis, cancel_completes_every_read_once) {
  set_file(*connection_, "m", random_bytes(8 * kMiB, 3), kMiB);
  const Blob blob = open("m");
  auto engine = make();
  engine->open(blob);
  Bytes target(blob.size);
  const auto reads = shredded(engine->traits(), blob, target.data(), 64 * kKiB);
  engine->submit(reads);
  engine->cancel();
  complete(*engine, reads.size());
}

TEST_P(Redis, wait_returns_at_the_deadline_and_when_it_is_rung) {
  const Fd wake = make_eventfd();
  auto engine = make(wake.get());
  Completion done[4];
  const auto start = Clock::now();
  EXPECT_EQ(engine->wait(done, start + std::chrono::milliseconds(30)), 0U);
  EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(30));
  ring(wake.get());
  EXPECT_EQ(engine->wait(done, start + std::chrono::seconds(60)), 0U);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));
}

TEST_P(Redis, a_value_that_was_cut_since_is_an_error_that_says_where) {
  set_file(*connection_, "m", random_bytes(kMiB, 4), 256 * kKiB);
  const Blob blob = open("m");
  connection_->ask({"SET", "m:layer." + std::to_string(512 * kKiB % 7) + ":524288", "short"});
  auto engine = make();
  engine->open(blob);
  Bytes target(blob.size);
  const Read read{.tag = 1, .size = blob.size, .required = blob.size, .target = target.data()};
  const Outcome outcome = drive(*engine, {read});
  ASSERT_EQ(outcome.failed.size(), 1U);
  const Error& error = outcome.failed[0].second;
  EXPECT_EQ(error.code(), ErrorCode::data);
  EXPECT_NE(error.message().find("read redis://127.0.0.1:"), std::string::npos) << error.what();
  EXPECT_NE(error.message().find("it was cut or removed"), std::string::npos) << error.what();
}

INSTANTIATE_TEST_SUITE_P(Layers, Redis,
                         ::testing::Values(Layer::plain, Layer::faulty, Layer::retried),
                         [](const auto& one) {
                           return one.param == Layer::plain    ? "plain"
                                  : one.param == Layer::faulty ? "faulty"
                                                               : "retried";
                         });

class RedisPlaces : public Redis {};
INSTANTIATE_TEST_SUITE_P(Once, RedisPlaces, ::testing::Values(Layer::plain),
                         [](const auto&) { return "plain"; });

TEST_P(RedisPlaces, a_hole_between_keys_is_an_error_before_anything_is_read) {
  set_file(*connection_, "m", random_bytes(kMiB, 5), 256 * kKiB);
  connection_->ask({"DEL", "m:layer." + std::to_string(512 * kKiB % 7) + ":524288"});
  const std::string message = message_of([&] { open("m"); });
  EXPECT_NE(message.find("no key holds bytes [524288, +262144)"), std::string::npos) << message;
}

TEST_P(RedisPlaces, two_keys_for_one_byte_and_strangers_of_another_type_are_refused) {
  set_file(*connection_, "m", random_bytes(1000, 6), 500);
  set(*connection_, "m:again:500", random_bytes(500, 7));
  EXPECT_NE(message_of([&] { open("m"); }).find("two keys hold byte 500"), std::string::npos);
  connection_->ask({"RPUSH", "list", "x"});
  EXPECT_NE(message_of([&] { open("list"); }).find("WRONGTYPE"), std::string::npos);
}

TEST_P(RedisPlaces, keys_that_are_no_part_of_a_file_do_no_harm) {
  const Bytes bytes = random_bytes(1000, 8);
  set_file(*connection_, "m[1]*", bytes, 500);
  set(*connection_, "m[1]*:note", random_bytes(9, 9));
  set(*connection_, "m1:header:0", random_bytes(9, 9));
  const Blob blob = open("m[1]*");
  Bytes target(blob.size);
  store_->read(blob, 0, target);
  EXPECT_EQ(target, bytes);
}

TEST_P(RedisPlaces, its_identity_changes_with_any_of_its_keys_and_with_no_other) {
  set_file(*connection_, "m", random_bytes(1000, 10), 500);
  const Blob blob = open("m");
  EXPECT_EQ(store_->identity(blob), blob.identity);
  set(*connection_, "other", random_bytes(10, 1));
  EXPECT_EQ(store_->identity(blob), blob.identity);
  set_file(*connection_, "m", random_bytes(1000, 11), 500);  // the same sizes
  EXPECT_NE(store_->identity(blob), blob.identity);
  const Blob again = open("m");
  connection_->ask({"FLUSHALL"});
  EXPECT_NE(store_->identity(again), again.identity);
}

TEST_P(RedisPlaces, a_folder_lists_its_files) {
  set_file(*connection_, "models/a/one.safetensors", random_bytes(1000, 12), 500);
  set_file(*connection_, "models/a/two.safetensors", random_bytes(700, 13), 500);
  set_file(*connection_, "models/b/three", random_bytes(10, 14), 500);
  Place place = find_redis(server_.uri("models/a/"));
  EXPECT_EQ(place.entry, "");
  const std::vector<std::string> both{"one.safetensors", "two.safetensors"};
  EXPECT_EQ(place.store->list(), both);
}

TEST_P(RedisPlaces, a_missing_key_a_dead_server_and_another_database_say_so) {
  EXPECT_NE(message_of([&] { open("nothing"); }).find("there is no such key"), std::string::npos);
  set(*connection_, "here", random_bytes(10, 1));
  EXPECT_NE(message_of([&] { open("here?db=3"); }).find("no such key"), std::string::npos);
  EXPECT_NE(message_of([&] { open("here?db=99"); }).find("out of range"), std::string::npos);
  const Blob blob = open("here");
  auto engine = make();
  engine->open(blob);
  server_.stop();
  Bytes target(blob.size);
  const Read read{.tag = 1, .size = blob.size, .required = blob.size, .target = target.data()};
  const Outcome outcome = drive(*engine, {read});
  ASSERT_EQ(outcome.failed.size(), 1U);
  EXPECT_EQ(outcome.failed[0].second.code(), ErrorCode::source);
  EXPECT_NE(message_of([&] { open("here"); }).find("Connection refused"), std::string::npos);
}

TEST(RedisPassword, is_needed_checked_and_never_shown) {
  const RedisServer server({"--requirepass", "se:cr@t"});
  if (!server.connect(":se%3Acr%40t@")) GTEST_SKIP() << "redis-server is not installed";
  const std::string host = "127.0.0.1:" + std::to_string(server.port());
  server.connect(":se%3Acr%40t@")->ask({"SET", "k", "value"});
  Place place = find_redis("redis://:se%3Acr%40t@" + host + "/k");
  EXPECT_EQ(place.store->uri(), "redis://" + host + "/k");
  EXPECT_EQ(place.store->open("k").name, "redis://" + host + "/k");
  const std::string wrong = message_of([&] { find_redis("redis://:guess@" + host + "/k"); });
  EXPECT_NE(wrong.find("refuses the password: WRONGPASS"), std::string::npos) << wrong;
  EXPECT_EQ(wrong.find("guess"), std::string::npos) << wrong;
  const std::string none = message_of([&] { find_redis("redis://" + host + "/k"); });
  EXPECT_NE(none.find("NOAUTH"), std::string::npos) << none;
  const std::string bad = message_of([&] { find_redis("redis://:guess@" + host + "x/k"); });
  EXPECT_NE(bad.find("no port"), std::string::npos) << bad;
  EXPECT_EQ(bad.find("guess"), std::string::npos) << bad;
}

TEST(RedisUri, has_a_host_a_port_a_login_a_database_and_a_key) {
  const RedisPlace place = parse_redis_uri("rediss://me:p%2Fw@[::1]:7000/a/b?db=2");
  EXPECT_EQ(place.endpoint.host, "::1");
  EXPECT_EQ(place.endpoint.port, 7000);
  EXPECT_TRUE(place.endpoint.tls);
  EXPECT_EQ(place.user, "me");
  EXPECT_EQ(place.password, "p/w");
  EXPECT_EQ(place.database, 2U);
  EXPECT_EQ(place.key, "a/b");
  EXPECT_EQ(place.shown, "rediss://[::1]:7000");
  EXPECT_EQ(parse_redis_uri("redis://host/k").endpoint.port, 6379);
}

TEST(Resp, a_reply_cut_at_any_byte_is_waited_for) {
  const std::string whole = "*3\r\n$5\r\nhello\r\n:-12\r\n*2\r\n$-1\r\n+OK\r\n";
  for (size_t size = 0; size < whole.size(); ++size) {
    std::string_view part = std::string_view(whole).substr(0, size);
    EXPECT_FALSE(resp::take_reply(part)) << size;
    EXPECT_EQ(part.size(), size);
  }
  std::string_view rest = whole;
  const auto reply = resp::take_reply(rest);
  ASSERT_TRUE(reply);
  EXPECT_TRUE(rest.empty());
  EXPECT_EQ(reply->elements.at(0).text, "hello");
  EXPECT_EQ(reply->elements.at(1).number, -12);
  EXPECT_EQ(reply->elements.at(2).elements.at(0).kind, resp::Kind::nothing);
}

TEST(Resp, what_is_no_reply_is_refused) {
  for (const char* bytes : {"HTTP/1.1 400 Bad Request\r\n", "$99999999999\r\n", "$x\r\n", "$-2\r\n",
                            "*-9\r\n", "$2\r\nabcd", ":1 \r\n", "$\r\n"}) {
    std::string_view text = bytes;
    EXPECT_THROW(resp::take_reply(text), Error) << bytes;
  }
}

}  // namespace
}  // namespace inrush::testing
