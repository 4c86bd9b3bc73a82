#include "inrush/codecs/storage_sum.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "inrush/codecs/crc32.h"

namespace inrush {
namespace {

class BytesStore final : public Store {
 public:
  explicit BytesStore(size_t size) : bytes(size) {
    std::mt19937_64 random(size);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    blob.name = "model.bin";
    blob.size = size;
  }
  [[nodiscard]] std::string uri() const override { return "bytes"; }
  std::vector<std::string> list() override { return {blob.name}; }
  Blob open(const std::string&) override { return blob; }
  Identity identity(const Blob&) override { return {}; }
  void read(const Blob&, uint64_t offset, std::span<std::byte> target) override {
    read_bytes += target.size();
    if (stop_at != 0 && read_bytes >= stop_at) stopped = true;
    std::memcpy(target.data(), bytes.data() + offset, target.size());
  }
  [[nodiscard]] uint32_t sum(uint64_t offset, uint64_t size) const {
    return crc32(0, std::span(bytes).subspan(offset, size));
  }

  std::vector<std::byte> bytes;
  Blob blob;
  std::atomic<uint64_t> read_bytes = 0;
  uint64_t stop_at = 0;
  std::atomic<bool> stopped = false;
};

constexpr uint64_t kBegin = 1000;
constexpr uint64_t kSize = (9 << 20) + 123;

std::shared_ptr<StorageSum> sum_of(BytesStore& store, uint32_t expected, uint64_t size = kSize) {
  auto sum = std::make_shared<StorageSum>(store, store.blob, "storage \"0\"");
  sum->set_expected(kBegin, size, expected);
  return sum;
}

TensorInfo part_of(uint64_t offset, uint64_t size) {
  TensorInfo tensor;
  tensor.name = "t";
  tensor.offset = kBegin + offset;
  tensor.size = size;
  tensor.shape = {size};
  return tensor;
}

TEST(StorageSum, of_any_part_is_the_sum_of_its_bytes_and_the_storage_is_read_once) {
  BytesStore store(10 << 20);
  const auto sum = sum_of(store, store.sum(kBegin, kSize));
  std::mt19937_64 random(7);
  std::vector<std::pair<uint64_t, uint64_t>> parts{{0, kSize}, {0, 1}, {kSize - 1, 1}};
  for (int i = 0; i < 50; ++i) {
    const uint64_t offset = random() % kSize;
    parts.emplace_back(offset, 1 + random() % (kSize - offset));
  }
  for (const auto& [offset, size] : parts) sum->add_part(kBegin + offset, size);
  for (const auto& [offset, size] : parts) {
    const auto decoder = make_storage_check(part_of(offset, size), "model.bin", sum);
    decoder->update(0, std::span(store.bytes).subspan(kBegin + offset, size));
    EXPECT_EQ(decoder->finish(), "");
    EXPECT_EQ(sum->part(kBegin + offset, size), store.sum(kBegin + offset, size));
  }
  EXPECT_EQ(store.read_bytes, kSize);
}

TEST(StorageSum, refuses_what_was_delivered_otherwise_and_storages_that_are_wrong) {
  BytesStore store(10 << 20);
  const auto sum = sum_of(store, store.sum(kBegin, kSize));
  sum->add_part(kBegin + 5, 100);
  const auto decoder = make_storage_check(part_of(5, 100), "model.bin", sum);
  std::vector<std::byte> other(store.bytes.begin() + kBegin + 5,
                               store.bytes.begin() + kBegin + 105);
  other[99] ^= std::byte{1};
  decoder->update(0, other);
  EXPECT_THROW(decoder->finish(), Error);

  const auto wrong = sum_of(store, store.sum(kBegin, kSize) ^ 4);
  for (int i = 0; i < 2; ++i) {
    try {
      wrong->check(store.stopped);
      FAIL() << "it was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::data);
      EXPECT_NE(error.message().find("verify model.bin [1000, +9437307): storage \"0\": its CRC"),
                std::string::npos)
          << error.message();
    }
  }
}

TEST(StorageSum, stops_soon_and_can_be_asked_again) {
  constexpr uint64_t kLarge = 48 << 20;  // more pieces than are read at once
  BytesStore store(kLarge + kBegin);
  store.stop_at = 1;
  const auto sum = sum_of(store, store.sum(kBegin, kLarge), kLarge);
  EXPECT_THROW(sum->check(store.stopped), Error);
  store.stop_at = 0;
  store.stopped = false;
  sum->check(store.stopped);
}

}  // namespace
}  // namespace inrush
