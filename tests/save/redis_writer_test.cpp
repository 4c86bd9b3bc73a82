#include "inrush/stores/redis_writer.h"

#include <gtest/gtest.h>

#include "inrush/save.h"
#include "inrush/stores/redis.h"
#include "tests/engines/scratch.h"
#include "tests/redis_server.h"

namespace inrush::testing {
namespace {

class RedisWriting : public ::testing::Test {
 protected:
  void SetUp() override {
    connection_ = server_.connect();
    if (!connection_) GTEST_SKIP() << "redis-server is not installed";
  }

  std::vector<std::string> keys() {
    std::vector<std::string> names;
    for (const resp::Reply& key : connection_->ask({"KEYS", "*"}).elements) {
      names.push_back(key.text);
    }
    return names;
  }

  Bytes read_back(const std::string& key) {
    const Place place = find_redis(server_.uri(key));
    const Blob blob = place.store->open(place.entry);
    Bytes bytes(blob.size);
    place.store->read(blob, 0, bytes);
    return bytes;
  }

  RedisServer server_;
  std::unique_ptr<RedisConnection> connection_;
};

void write_in_parts(Writer& writer, const Bytes& bytes, size_t part) {
  writer.create(bytes.size());
  for (size_t at = part; at < bytes.size(); at += part) {
    writer.write(at, std::span(bytes).subspan(at, std::min(part, bytes.size() - at)));
  }
  writer.write(0, std::span(bytes).first(std::min(part, bytes.size())));
}

TEST_F(RedisWriting, a_file_is_there_when_it_is_finished_and_not_before) {
  const Bytes bytes = random_bytes(kMiB + 77, 1);
  const auto writer = write_redis(server_.uri("a/b"));
  write_in_parts(*writer, bytes, 300'000);
  EXPECT_THROW(read_back("a/b"), Error);
  writer->finish();
  EXPECT_EQ(read_back("a/b"), bytes);
  for (const std::string& key : keys()) {
    EXPECT_TRUE(key.starts_with("a/b:")) << key;
    EXPECT_EQ(connection_->ask({"TTL", key}).number, -1) << key;
  }
}

TEST_F(RedisWriting, what_was_there_is_replaced_as_a_whole_and_strangers_stay) {
  connection_->ask({"SET", "m:note", "stays"});
  connection_->ask({"SET", "m2:header:0", "stays"});
  const auto first = write_redis(server_.uri("m"));
  write_in_parts(*first, random_bytes(900'000, 2), 100'000);
  first->finish();
  const Bytes bytes = random_bytes(250'000, 3);
  const auto second = write_redis(server_.uri("m"));
  write_in_parts(*second, bytes, 100'000);
  second->finish();
  EXPECT_EQ(read_back("m"), bytes);
  EXPECT_EQ(keys().size(), 3U + 2U);
}

TEST_F(RedisWriting, an_aborted_one_leaves_nothing_and_an_abandoned_one_expires) {
  const auto aborted = write_redis(server_.uri("m"));
  write_in_parts(*aborted, random_bytes(300'000, 4), 100'000);
  for (const std::string& key : keys()) EXPECT_GT(connection_->ask({"TTL", key}).number, 0) << key;
  aborted->abort();
  EXPECT_TRUE(keys().empty());
}

TEST_F(RedisWriting, bytes_that_were_never_written_are_an_error) {
  const Bytes bytes = random_bytes(1000, 5);
  const auto writer = write_redis(server_.uri("m"));
  writer->create(2000);
  writer->write(1000, bytes);
  EXPECT_THROW(writer->finish(), Error);
  writer->abort();
  EXPECT_TRUE(keys().empty());
}

TEST_F(RedisWriting, safetensors_are_written_through_it) {
  const Bytes data = random_bytes(400'000, 6);
  SaveTensor tensor{.name = "w", .dtype = Dtype::f32, .shape = {100, 1000}, .data = data};
  const auto writer = write_redis(server_.uri("m"));
  write_safetensors(*writer, {tensor}, std::nullopt);
  const Bytes file = read_back("m");
  ASSERT_GT(file.size(), data.size());
  EXPECT_TRUE(std::equal(data.begin(), data.end(), file.end() - 400'000));
}

}  // namespace
}  // namespace inrush::testing
