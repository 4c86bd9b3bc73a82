#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "../files.h"
#include "inrush/formats/formats.h"
#include "inrush/save.h"
#include "inrush/stores/stores.h"

namespace inrush::test {
namespace {

SaveTensor tensor(const std::string& name, Dtype dtype, std::vector<uint64_t> shape,
                  const std::string& bytes) {
  return {name, dtype, std::move(shape), std::as_bytes(std::span(bytes))};
}

// What golden/make.py makes: bytes (37 i + 11) mod 256.
std::string pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>((i * 37 + 11) % 256);
  return bytes;
}

TEST(SaveFile, that_is_stopped_between_parts_leaves_nothing) {
  const std::string bytes = pattern(20 << 20);
  const Folder folder;
  std::atomic<int> asked = 0;  // by all that write
  const SaveOptions stopped{.stopped = [&] { return ++asked > 2; }};
  try {
    save_file(folder / "x.safetensors", {tensor("x", Dtype::u8, {bytes.size()}, bytes)}, stopped);
    FAIL() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::cancelled);
  }
  const ShardOptions shards{.stopped = [] { return true; }};
  EXPECT_THROW(save_sharded(folder / "x", {tensor("x", Dtype::u8, {4}, pattern(4))}, shards),
               Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder / "x"));
  EXPECT_FALSE(std::filesystem::exists(folder / "x.safetensors"));
  const auto left = std::distance(std::filesystem::directory_iterator(folder / "."), {});
  EXPECT_EQ(left, 1);
}

TEST(SaveFile, writes_what_safetensors_writes_byte_for_byte) {
  const std::vector<Dtype> dtypes = {
      Dtype::boolean, Dtype::f4,      Dtype::u8,          Dtype::i8,          Dtype::f8_e5m2,
      Dtype::f8_e4m3, Dtype::f8_e8m0, Dtype::f8_e4m3fnuz, Dtype::f8_e5m2fnuz, Dtype::i16,
      Dtype::u16,     Dtype::f16,     Dtype::bf16,        Dtype::i32,         Dtype::u32,
      Dtype::f32,     Dtype::c64,     Dtype::f64,         Dtype::i64,         Dtype::u64};
  const std::string bytes = pattern(64);
  std::vector<SaveTensor> tensors;
  for (size_t i = 0; i < dtypes.size(); ++i) {
    const uint64_t last = dtypes[i] == Dtype::f4 ? 8 : 4;
    const size_t size = last * 2 * bits_of(dtypes[i]) / 8;
    for (const char* letter : {"a.", "b."}) {
      tensors.push_back({letter + std::to_string(i),
                         dtypes[i],
                         {2, last},
                         std::as_bytes(std::span(bytes).first(size))});
    }
  }
  const std::string four = pattern(4);
  const std::string three = pattern(3);
  tensors.push_back(tensor("scalar", Dtype::f32, {}, four));
  tensors.push_back(tensor("empty", Dtype::i64, {0, 3}, ""));
  tensors.push_back(tensor("c\n\"\\\xc3\xa9\x7f\x01/", Dtype::u8, {3}, three));
  const Folder folder;
  save_file(folder / "x.safetensors", tensors, {.metadata = {{{"format", "p\"t\n"}}}});
  const auto golden =
      std::filesystem::path(__FILE__).parent_path() / "golden" / "all_dtypes.safetensors";
  std::ifstream in(golden, std::ios::binary);
  ASSERT_TRUE(in) << golden;
  const std::string expected{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(folder.read("x.safetensors"), expected);
}

TEST(SaveFile, comes_back_as_it_went) {
  const std::string large = random_text(9'000'001, 3);  // over two blocks of the writer
  const std::string small = random_text(12, 4);
  std::vector<SaveTensor> tensors = {tensor("small", Dtype::f32, {3}, small),
                                     tensor("large", Dtype::u8, {9'000'001}, large)};
  for (int i = 0; i < 3000; ++i) {
    tensors.push_back(tensor("t" + std::to_string(i), Dtype::f32, {3}, small));
  }
  const Folder folder;
  save_file(folder / "x.safetensors", tensors, {});
  const std::string file = folder.read("x.safetensors");
  const auto place = find_place(folder.path());
  const Index index = read_index(*place.store);
  ASSERT_EQ(index.tensors.size(), tensors.size());
  for (const auto& saved : tensors) {
    const TensorInfo* found = index.find(saved.name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->shape, saved.shape);
    const std::string& expected = saved.name == "large" ? large : small;
    EXPECT_EQ(file.compare(found->offset, found->size, expected), 0) << saved.name;
  }
}

TEST(SafetensorsHeader, of_nothing_is_an_empty_object_and_padded) {
  std::vector<SaveTensor> none;
  EXPECT_EQ(safetensors_header(none, std::nullopt), length_of(8) + "{}      ");
  const std::string metadata = R"({"__metadata__":{}})";
  EXPECT_EQ(safetensors_header(none, std::map<std::string, std::string>{}),
            length_of(24) + metadata + std::string(24 - metadata.size(), ' '));
}

TEST(SafetensorsHeader, sorts_metadata_so_that_equal_input_gives_equal_files) {
  std::vector<SaveTensor> none;
  const auto header = safetensors_header(none, {{{"b", "2"}, {"a", "1"}}});
  EXPECT_TRUE(contains(header, R"({"__metadata__":{"a":"1","b":"2"}})"));
}

TEST(SaveFile, refuses_what_no_reader_would_take) {
  const std::string bytes = random_text(16);
  const Folder folder;
  const auto refused = [&](std::vector<SaveTensor> tensors, SaveOptions options = {}) {
    const auto text = message_of(ErrorCode::usage, [&] {
      save_file(folder / "x.safetensors", std::move(tensors), options);
    });
    EXPECT_EQ(folder.count(), 0U);
    return text;
  };
  EXPECT_TRUE(contains(refused({tensor("a", Dtype::f32, {3}, bytes)}), "16 bytes given"));
  EXPECT_TRUE(contains(refused({tensor("a", Dtype::f4, {31}, bytes)}), "16 bytes given"));
  EXPECT_TRUE(contains(refused({tensor("a", Dtype::u8, {1ULL << 63, 2}, bytes)}), "2^64"));
  EXPECT_TRUE(
      contains(refused({tensor("a", Dtype::u8, {16}, bytes), tensor("a", Dtype::f32, {4}, bytes)}),
               "given twice"));
  EXPECT_TRUE(contains(refused({tensor("__metadata__", Dtype::u8, {16}, bytes)}), "taken"));
  EXPECT_TRUE(contains(refused({tensor("\xff", Dtype::u8, {16}, bytes)}), "UTF-8"));
  EXPECT_TRUE(contains(refused({}, {.metadata = {{{"k", "\xff"}}}}), "UTF-8"));
  EXPECT_TRUE(
      contains(refused({}, {.metadata = {{{"k", std::string(100'000'000, 'a')}}}}), "limit"));
}

}  // namespace
}  // namespace inrush::test
