#include "inrush/formats/formats.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "../files.h"
#include "inrush/stores/stores.h"

namespace inrush::test {
namespace {

Index open(const std::string& path) {
  const auto place = find_place(path);
  std::vector<std::string> entries;
  if (!place.entry.empty()) entries.push_back(place.entry);
  return read_index(*place.store, entries);
}

std::string index_of(const std::vector<std::pair<std::string, std::string>>& map) {
  std::string json = R"({"metadata":{"total_size":12},"weight_map":{)";
  for (size_t i = 0; i < map.size(); ++i) {
    json += (i == 0 ? "\"" : ",\"") + map[i].first + "\":\"" + map[i].second + "\"";
  }
  return json + "}}";
}

constexpr const char* kIndex = "model.safetensors.index.json";

TEST(SafetensorsFile, is_indexed_with_offsets_from_its_first_byte) {
  const Folder folder;
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}})";
  const auto path = folder.write("x.safetensors", safetensors_file(json, 16));
  const Index index = open(path);
  EXPECT_EQ(index.format, "safetensors");
  ASSERT_EQ(index.blobs.size(), 1U);
  EXPECT_EQ(index.blobs[0].name, path);
  EXPECT_EQ(index.metadata[0]->at("format"), "pt");
  const TensorInfo* w = index.find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->dtype, Dtype::bf16);
  EXPECT_EQ(w->shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(w->offset, 8 + json.size());
  EXPECT_EQ(w->size, 12U);
  EXPECT_EQ(index.find("b")->offset, 8 + json.size() + 12);
  EXPECT_TRUE(index.find("b")->shape.empty());
}

TEST(SafetensorsFile, is_known_by_its_head_when_its_name_says_nothing) {
  const Folder folder;
  EXPECT_EQ(open(folder.write("0123abcd", file_with({"a"}))).tensors.size(), 1U);
}

// A folder that counts how often its entries are opened.
class Counting final : public Store {
 public:
  explicit Counting(const std::string& folder) : place_(find_place(folder)) {}

  [[nodiscard]] std::string uri() const override { return place_.store->uri(); }
  std::vector<std::string> list() override { return place_.store->list(); }
  Identity identity(const Blob& blob) override { return place_.store->identity(blob); }
  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    place_.store->read(blob, offset, target);
  }
  Blob open(const std::string& name) override {
    Blob blob = place_.store->open(name);
    const std::lock_guard lock(mutex_);
    ++opened[name];
    return blob;
  }

  std::map<std::string, int> opened;

 private:
  Place place_;
  std::mutex mutex_;
};

TEST(Formats, each_entry_is_opened_once_for_each_is_a_round_trip_where_it_is_far_away) {
  const std::map<std::string, int> once = {{"a.safetensors", 1}, {"b.safetensors", 1}};
  const Folder folder;
  folder.write("a.safetensors", file_with({"a"}));
  folder.write("b.safetensors", file_with({"b"}));
  Counting plain(folder.path());
  EXPECT_EQ(read_index(plain, {}).tensors.size(), 2U);
  EXPECT_EQ(plain.opened, once);
  const Folder unnamed;
  unnamed.write("0", file_with({"a"}));
  unnamed.write("1", file_with({"b"}));
  Counting looked_into(unnamed.path());
  EXPECT_EQ(read_index(looked_into, {}).tensors.size(), 2U);
  EXPECT_EQ(looked_into.opened, (std::map<std::string, int>{{"0", 1}, {"1", 1}}));
}

TEST(SafetensorsFile, may_have_a_header_longer_than_the_first_read) {
  std::vector<std::string> names;
  for (int i = 0; i < 5000; ++i) names.push_back("tensor.number." + std::to_string(i));
  const Folder folder;
  const Index index = open(folder.write("x.safetensors", file_with(names)));
  ASSERT_EQ(index.tensors.size(), names.size());
  for (const auto& name : names) EXPECT_NE(index.find(name), nullptr) << name;
}

TEST(FolderOfFiles, without_an_index_is_all_its_safetensors_files) {
  const Folder folder;
  for (int i = 0; i < 20; ++i) {
    folder.write("m-" + std::to_string(100 + i) + ".safetensors",
                 file_with({"t" + std::to_string(i), "u" + std::to_string(i)}));
  }
  folder.write("config.json", "{}");
  folder.write("._m-100.safetensors", "leftover");
  const Index index = open(folder.path());
  EXPECT_EQ(index.blobs.size(), 20U);
  EXPECT_EQ(index.tensors.size(), 40U);
  for (size_t i = 1; i < index.blobs.size(); ++i) {
    EXPECT_LT(index.blobs[i - 1].name, index.blobs[i].name);
  }
  EXPECT_EQ(index.find("t7")->blob, 7U);
}

TEST(FolderOfFiles, with_a_name_in_two_files_names_both) {
  const Folder folder;
  folder.write("consolidated.safetensors", file_with({"a", "b"}));
  folder.write("model.safetensors", file_with({"b", "c"}));
  const auto text = message_of(ErrorCode::data, [&] { open(folder.path()); });
  EXPECT_TRUE(contains(text, "consolidated.safetensors"));
  EXPECT_TRUE(contains(text, "model.safetensors"));
  EXPECT_TRUE(contains(text, "\"b\""));
}

TEST(FolderOfFiles, with_one_bad_shard_of_many_names_that_one) {
  const Folder folder;
  for (int i = 0; i < 12; ++i) {
    folder.write("m-" + std::to_string(100 + i) + ".safetensors", file_with({std::to_string(i)}));
  }
  const auto bad = folder.write("m-105.safetensors", "");
  EXPECT_TRUE(contains(message_of(ErrorCode::data, [&] { open(folder.path()); }), bad));
}

TEST(FolderOfFiles, with_a_file_of_no_tensors_among_others_is_accepted) {
  const Folder folder;
  folder.write("a.safetensors", safetensors_file("{}", 0));
  folder.write("b.safetensors", file_with({"a"}));
  EXPECT_EQ(open(folder.path()).tensors.size(), 1U);
}

TEST(FolderOfFiles, without_weights_says_what_lies_there) {
  const Folder folder;
  EXPECT_TRUE(contains(message_of(ErrorCode::data, [&] { open(folder.path()); }), "no files"));
  folder.write("pytorch_model.bin", "x");
  const auto text = message_of(ErrorCode::data, [&] { open(folder.path()); });
  EXPECT_TRUE(contains(text, "pytorch_model.bin"));
}

TEST(NoCheckpoint, is_told_by_what_it_seems_to_be) {
  using namespace std::string_literals;
  const std::map<std::string, std::string> seeming = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n", "git lfs pull"},
      {"<!DOCTYPE html><html><body>404</body></html>", "HTML"},
      {"<HTML><body>404</body></html>", "HTML"},
      {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "XML"},
      {"PK\x03\x04..........................", "zip"},
      {"\x80\x02}q\x00X\x05\x00\x00\x00model............"s, "pickle"},
      {"GGUF\x03\x00\x00\x00..............."s, "GGUF"},
      {"{\"error\": \"not found\"}", "JSON"},
      {std::string(4096, '\0'), "zeros"},
  };
  const Folder folder;
  for (const auto& [bytes, what] : seeming) {
    for (const char* name : {"model.safetensors", "model.bin"}) {
      const auto path = folder.write(name, bytes);
      const auto text = message_of(ErrorCode::data, [&] { open(path); });
      EXPECT_TRUE(contains(text, what));
      EXPECT_TRUE(contains(text, path));
    }
  }
  const auto empty = folder.write("model.bin", "");
  EXPECT_TRUE(contains(message_of(ErrorCode::data, [&] { open(empty); }), "empty"));
}

TEST(IndexFile, decides_which_files_belong) {
  const Folder folder;
  folder.write("model-1.safetensors", file_with({"a"}));
  folder.write("model-2.safetensors", file_with({"b", "c"}));
  folder.write("consolidated.safetensors", file_with({"a", "b", "c"}));
  folder.write(kIndex, index_of({{"a", "model-1.safetensors"},
                                 {"c", "model-2.safetensors"},
                                 {"b", "model-2.safetensors"}}));
  for (const auto& path : {folder.path(), folder / kIndex}) {
    const Index index = open(path);
    EXPECT_EQ(index.blobs.size(), 2U);
    EXPECT_EQ(index.tensors.size(), 3U);
  }
  EXPECT_EQ(open(folder / "consolidated.safetensors").tensors.size(), 3U);
}

TEST(IndexFile, names_the_shards_that_are_missing) {
  const Folder folder;
  folder.write("m-2.safetensors", file_with({"b"}));
  folder.write(
      kIndex,
      index_of({{"a", "m-1.safetensors"}, {"b", "m-2.safetensors"}, {"c", "m-3.safetensors"}}));
  const auto text = message_of(ErrorCode::data, [&] { open(folder.path()); });
  EXPECT_TRUE(contains(text, "2 of the 3 files"));
  EXPECT_TRUE(contains(text, "m-1.safetensors"));
  EXPECT_TRUE(contains(text, "m-3.safetensors"));
  EXPECT_TRUE(contains(text, folder / kIndex));
}

TEST(IndexFile, names_the_tensors_that_no_file_has) {
  const Folder folder;
  folder.write("m-1.safetensors", file_with({"b", "d"}));
  folder.write(
      kIndex,
      index_of({{"a", "m-1.safetensors"}, {"b", "m-1.safetensors"}, {"e", "m-1.safetensors"}}));
  const auto text = message_of(ErrorCode::data, [&] { open(folder.path()); });
  EXPECT_TRUE(contains(text, "\"a\""));
  EXPECT_TRUE(contains(text, "\"e\""));
  EXPECT_TRUE(contains(text, "m-1.safetensors"));
}

TEST(IndexFile, may_not_name_files_outside_its_folder) {
  const Folder folder;
  folder.write("secret.safetensors", file_with({"a"}));
  for (const char* file : {"../secret.safetensors", "/etc/passwd", "x/../../secret.safetensors", "",
                           ".", "./m.safetensors", "x//m.safetensors", "x/", "a\\u0000b", ".."}) {
    folder.write(std::string("m/") + kIndex, index_of({{"a", file}}));
    const auto text = message_of(ErrorCode::data, [&] { open(folder / "m"); });
    EXPECT_TRUE(contains(text, "not inside its folder")) << file;
  }
}

TEST(IndexFile, may_name_files_in_folders_below_and_links) {
  const Folder folder;
  folder.write("blob", file_with({"a"}));
  folder.write("m/sub/b.safetensors", file_with({"b"}));
  std::filesystem::create_symlink("../blob", folder / "m/a.safetensors");
  folder.write(std::string("m/") + kIndex,
               index_of({{"a", "a.safetensors"}, {"b", "sub/b.safetensors"}}));
  EXPECT_EQ(open(folder / "m").tensors.size(), 2U);
}

TEST(IndexFile, of_several_is_the_usual_one_or_must_be_chosen) {
  const Folder folder;
  folder.write("a.safetensors", file_with({"a"}));
  folder.write("b.safetensors", file_with({"a"}));
  const std::string plain = "diffusion.safetensors.index.json";
  const std::string variant = "diffusion.fp16.safetensors.index.json";
  folder.write(plain, index_of({{"a", "a.safetensors"}}));
  EXPECT_EQ(open(folder.path()).blobs.at(0).name, folder / "a.safetensors");
  folder.write(variant, index_of({{"a", "b.safetensors"}}));
  const auto text = message_of(ErrorCode::usage, [&] { open(folder.path()); });
  EXPECT_TRUE(contains(text, plain));
  EXPECT_TRUE(contains(text, variant));
  EXPECT_EQ(open(folder / variant).blobs.at(0).name, folder / "b.safetensors");
  folder.write(kIndex, index_of({{"a", "a.safetensors"}}));
  EXPECT_EQ(open(folder.path()).blobs.at(0).name, folder / "a.safetensors");
}

TEST(IndexFile, that_is_malformed_is_refused) {
  const std::map<std::string, std::string> bad = {
      {"", "no JSON"},
      {"{", "JSON"},
      {"[]", "expected an object"},
      {"{}", "no weight_map"},
      {R"({"weight_map":{}})", "empty"},
      {R"({"weight_map":[]})", "expected an object"},
      {R"({"weight_map":{"a":1}})", "expected a string"},
      {R"({"weight_map":{"a":"x.safetensors","a":"x.safetensors"}})", "twice"},
      {R"({"weight_map":{"a":"x"},"weight_map":{"b":"x"}})", "twice"},
      {R"({"weight_map":{"a":"x.safetensors"}} x)", "behind it"},
      {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
      {"{\"weight_map\":{\"a\xff\":\"x\"}}", "UTF-8"},
  };
  const Folder folder;
  folder.write("x.safetensors", file_with({"a"}));
  for (const auto& [json, reason] : bad) {
    const auto path = folder.write(kIndex, json);
    const auto text = message_of(ErrorCode::data, [&] { open(folder.path()); });
    EXPECT_TRUE(contains(text, reason)) << json;
    EXPECT_TRUE(contains(text, path));
  }
}

}  // namespace
}  // namespace inrush::test
