#include "inrush/manifest.h"

#include <gtest/gtest.h>

#include "../files.h"

namespace inrush::test {
namespace {

std::string digest(char digit) { return std::string(64, digit); }

Index two_files() {
  Index index;
  index.format = "safetensors";
  for (const char* name : {"/m/sub/b.safetensors", "/m/a.safetensors"}) {
    Blob blob;
    blob.name = name;
    blob.size = 2'000'100;
    index.blobs.push_back(blob);
  }
  const auto add = [&](const std::string& name, uint32_t blob, uint64_t length) {
    TensorInfo tensor;
    tensor.name = name;
    tensor.dtype = Dtype::u8;
    tensor.shape = {length};
    tensor.blob = blob;
    tensor.offset = 100;
    tensor.size = length;
    index.tensors.push_back(tensor);
  };
  add("y", 1, 2'000'000);
  add("x\n", 0, 8);
  index.finish();
  return index;
}

Manifest manifest() {
  return make_manifest(two_files(), {{"y", digest('a')}, {"x\n", digest('b')}},
                       {{"y", {digest('1'), digest('2')}}});
}

TEST(Manifest, names_files_from_the_folder_they_share) {
  const Manifest made = manifest();
  ASSERT_EQ(made.files.size(), 2U);
  EXPECT_EQ(made.files[0].name, "a.safetensors");
  EXPECT_EQ(made.files[1].name, "sub/b.safetensors");
  ASSERT_EQ(made.tensors.size(), 2U);
  EXPECT_EQ(made.tensors[0].name, "x\n");
  EXPECT_EQ(made.tensors[0].file, "sub/b.safetensors");
  Index single = two_files();
  single.blobs.resize(1);
  single.tensors.clear();
  single.by_name.clear();
  EXPECT_EQ(make_manifest(single).files.at(0).name, "a.safetensors");
  EXPECT_TRUE(make_manifest(Index{}).files.empty());
}

TEST(Manifest, comes_back_from_its_json) {
  const Manifest made = manifest();
  EXPECT_EQ(parse_manifest(to_json(made), "m"), made);
  EXPECT_EQ(parse_manifest(to_json(Manifest{}), "m"), Manifest{});
}

TEST(Manifest, that_was_written_with_more_fields_is_read) {
  const auto read = parse_manifest(
      R"({"new":[1],"schema_version":1,"format":"f","files":[{"name":"a","size":4,"etag":null}],)"
      R"("tensors":{"t":{"file":"a","dtype":"F32","shape":[1],"size":4,"colour":"red"}}})",
      "m");
  EXPECT_EQ(read.tensors.at(0).digest, "");
}

TEST(Manifest, that_is_malformed_is_refused_with_file_and_place) {
  const std::string files = R"("schema_version":1,"files":[{"name":"a","size":4}],"tensors":)";
  const auto tensor = [&](const std::string& fields) {
    return "{" + files + "{\"t\":{" + fields + "}}}";
  };
  const std::string good = R"("file":"a","dtype":"F32","shape":[1],"size":4)";
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "no JSON"},
      {"[]", "expected an object"},
      {"{}", "no schema_version"},
      {R"({"schema_version":2})", "schema_version 2"},
      {R"({"schema_version":1.0})", "unsigned integer"},
      {R"({"schema_version":1,"digest":"md5"})", "\"md5\""},
      {R"({"schema_version":1} {)", "behind it"},
      {R"({"schema_version":1,"files":[{"name":"a"},{"name":"a"}]})", "file \"a\" stands"},
      {"{" + files + "{\"t\":{" + good + "},\"t\":{" + good + "}}}", "tensor \"t\" stands"},
      {tensor(R"("file":"b","dtype":"F32","shape":[1],"size":4)"), "\"b\" is not among"},
      {tensor(R"("file":"a","shape":[1],"size":4)"), "no dtype"},
      {tensor(R"("file":"a","dtype":"X","shape":[1],"size":4)"), "not known"},
      {tensor(R"("file":"a","dtype":"F32","shape":[2],"size":4)"), "do not fit"},
      {tensor(R"("file":"a","dtype":"F32","shape":[4611686018427387905],"size":4)"), "do not fit"},
      {tensor(good + R"(,"digest":"AB")"), "no digest"},
      {tensor(good + R"(,"digest":")" + std::string(64, 'A') + "\""), "no digest"},
      {tensor(good + R"(,"leaves":[")" + digest('1') + "\",\"" + digest('2') + "\"]"), "2 leaves"},
  };
  for (const auto& [json, reason] : bad) {
    const auto text = message_of(ErrorCode::data, [&] { parse_manifest(json, "/m/f.json"); });
    EXPECT_TRUE(contains(text, reason)) << json;
    EXPECT_TRUE(contains(text, "/m/f.json ["));
  }
}

TEST(Manifest, truncated_anywhere_is_refused) {
  const std::string json = to_json(manifest());
  const size_t end = json.rfind('}');
  for (size_t size = 0; size <= end; ++size) {
    EXPECT_THROW(parse_manifest(json.substr(0, size), "m"), Error) << size;
  }
}

TEST(Compare, finds_no_difference_between_equals) {
  EXPECT_TRUE(compare(manifest(), manifest()).empty());
}

TEST(Compare, names_every_difference) {
  const auto only = [](const Manifest& expected, const Manifest& actual) {
    const auto found = compare(expected, actual);
    EXPECT_EQ(found.size(), 1U);
    return found.empty() ? Difference{} : found.front();
  };
  Manifest other = manifest();
  other.tensors.pop_back();
  EXPECT_EQ(only(manifest(), other).what, Differs::missing);
  EXPECT_EQ(only(other, manifest()).what, Differs::extra);
  other = manifest();
  other.tensors[1].shape = {2, 1'000'000};
  EXPECT_EQ(only(manifest(), other).text, "tensor \"y\": shape [2, 1000000], expected [2000000]");
  other = manifest();
  other.tensors[1].dtype = Dtype::i8;
  EXPECT_EQ(only(manifest(), other).text, "tensor \"y\": dtype I8, expected U8");
  other = manifest();
  other.files[0].size += 1;
  EXPECT_EQ(only(manifest(), other).what, Differs::file);
  other = manifest();
  other.files.pop_back();
  EXPECT_EQ(only(manifest(), other).text, "file \"sub/b.safetensors\": missing");
}

TEST(Compare, says_which_leaf_differs_where_both_know_theirs) {
  Manifest other = manifest();
  other.tensors[1].digest = digest('c');
  other.tensors[1].leaves[1] = digest('3');
  const auto found = compare(manifest(), other);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].what, Differs::digest);
  EXPECT_TRUE(contains(found[0].text, "1 of 2 leaves differ, the first at [1048576, +951424)"));
  other.tensors[1].leaves.clear();
  EXPECT_FALSE(contains(compare(manifest(), other).at(0).text, "leaves"));
}

TEST(Compare, leaves_alone_digests_that_one_side_does_not_know) {
  EXPECT_TRUE(compare(manifest(), make_manifest(two_files())).empty());
}

}  // namespace
}  // namespace inrush::test
