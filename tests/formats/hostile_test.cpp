// Files that must be refused, each with one Error that names file, range and reason; and odd ones
// that must be accepted, because safetensors accepts them.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "../files.h"
#include "inrush/formats/formats.h"
#include "inrush/stores/stores.h"

namespace inrush::test {
namespace {

Index index_at(const std::string& path) {
  const auto place = find_place(path);
  std::vector<std::string> entries;
  if (!place.entry.empty()) entries.push_back(place.entry);
  return read_index(*place.store, entries);
}

// One tensor "a" with these fields; 16 bytes of data.
std::string one(const std::string& fields) {
  return safetensors_file("{\"a\":{" + fields + "}}", 16);
}

std::string shaped(const std::string& dtype, const std::string& shape, const std::string& offsets,
                   size_t data_size = 16) {
  return safetensors_file(R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape +
                              R"(,"data_offsets":)" + offsets + "}}",
                          data_size);
}

// Tensors of U8 at these offsets; the data is 16 bytes.
std::string at(const std::vector<std::pair<int, int>>& offsets) {
  std::string json = "{";
  for (size_t i = 0; i < offsets.size(); ++i) {
    const auto [begin, end] = offsets[i];
    json += (i == 0 ? "\"t" : ",\"t") + std::to_string(i) + R"(":{"dtype":"U8","shape":[)" +
            std::to_string(end - begin) + R"(],"data_offsets":[)" + std::to_string(begin) + "," +
            std::to_string(end) + "]}";
  }
  return safetensors_file(json + "}", 16);
}

struct Case {
  const char* name;
  std::string bytes;
  std::string reason;
};

const std::string kGood = R"("dtype":"U8","shape":[16],"data_offsets":[0,16])";

std::vector<Case> lengths() {
  return {
      {"empty_file", "", "has 0 bytes"},
      {"seven_bytes", "1234567", "has 7 bytes"},
      {"length_0", length_of(0) + random_text(16), "header of 0 bytes"},
      {"length_over_the_limit", length_of(100'000'001) + "{}", "limit"},
      {"length_near_2_64", length_of(0xffffffff0000003c) + "{}", "limit"},
      {"length_that_overflows", length_of(UINT64_MAX - 3) + "{}", "limit"},
      {"length_past_the_end", length_of(60), "truncated"},
      {"length_1000_in_a_tiny_file", length_of(1000) + "{}", "truncated"},
      {"truncated_header", length_of(4 << 20) + "{", "truncated"},
      {"bytes_behind", safetensors_file("{\"a\":{" + kGood + "}}", 16) + "extra_bogus_data",
       "behind its last tensor"},
      {"bytes_behind_no_tensor", safetensors_file("{}", 1), "behind its last tensor"},
      {"two_bytes_missing", safetensors_file("{\"a\":{" + kGood + "}}", 14), "past the end"},
  };
}

std::vector<Case> json() {
  const auto bad = [](const std::string& text) { return safetensors_file(text, 16); };
  return {
      {"not_utf8", bad("\xff"), "UTF-8"},
      {"name_not_utf8", bad("{\"\xc3\x28\":{" + kGood + "}}"), "UTF-8"},
      {"not_json", bad("{"), "cut off"},
      {"html", bad("<html></html>"), "expected an object"},
      {"white_space_only", bad("      "), "no JSON"},
      {"array_at_the_root", bad("[1]"), "expected an object"},
      {"number_at_the_root", bad("12"), "expected an object"},
      {"something_behind", bad("{\"a\":{" + kGood + "}} x"), "stands behind it"},
      {"second_object_behind", bad("{\"a\":{" + kGood + "}}{}"), "behind the end"},
      {"nul_behind", bad("{\"a\":{" + kGood + "}}" + std::string(1, '\0')), "stands behind it"},
      {"deep_nesting", bad("{\"a\":" + std::string(100'000, '[')), "cut off"},
      {"deep_nesting_in_an_unknown_field",
       one(kGood + ",\"x\":" + std::string(100'000, '[') + std::string(100'000, ']')), "nested"},
      {"malformed_unknown_field", one(kGood + ",\"x\":[1,]"), "not valid JSON"},
      {"lone_surrogate_in_a_name", bad(R"({"\ud800":{)" + kGood + "}}"), "escape"},
      {"control_character_in_a_name", bad("{\"a\n\":{" + kGood + "}}"), "control character"},
      {"tensor_is_null", bad(R"({"a":null})"), "expected an object"},
      {"tensor_is_an_array", bad(R"({"a":["U8",[16],[0,16]]})"), "expected an object"},
  };
}

std::vector<Case> fields() {
  const std::string rest = R"(,"shape":[16],"data_offsets":[0,16])";
  return {
      {"no_dtype", one(R"("shape":[16],"data_offsets":[0,16])"), "no dtype"},
      {"no_shape", one(R"("dtype":"U8","data_offsets":[0,16])"), "no shape"},
      {"no_offsets", one(R"("dtype":"U8","shape":[16])"), "no data_offsets"},
      {"empty_entry", one(""), "no dtype"},
      {"unknown_dtype", one(R"("dtype":"F128")" + rest), "\"F128\" is not known"},
      {"dtype_in_lower_case", one(R"("dtype":"u8")" + rest), "not known"},
      {"dtype_is_a_number", one(R"("dtype":3)" + rest), "expected a string"},
      {"dtype_twice", one(R"("dtype":"U8",)" + kGood), "twice"},
      {"shape_twice", one(kGood + R"(,"shape":[16])"), "twice"},
      {"offsets_twice", one(kGood + R"(,"data_offsets":[0,16])"), "twice"},
      {"field_spelt_with_an_escape_twice", one(kGood + R"(,"\u0073hape":[16])"), "twice"},
      {"shape_is_a_number", one(R"("dtype":"U8","shape":16,"data_offsets":[0,16])"),
       "expected an array"},
      {"shape_is_null", one(R"("dtype":"U8","shape":null,"data_offsets":[0,16])"),
       "expected an array"},
      {"negative_length", shaped("U8", "[-16]", "[0,16]"), "unsigned integer"},
      {"fractional_length", shaped("U8", "[16.0]", "[0,16]"), "unsigned integer"},
      {"exponent_in_a_length", shaped("U8", "[16e0]", "[0,16]"), "unsigned integer"},
      {"minus_zero", shaped("U8", "[-0]", "[0,0]", 0), "unsigned integer"},
      {"length_as_text", shaped("U8", "[\"16\"]", "[0,16]"), "unsigned integer"},
      {"leading_zero", shaped("U8", "[016]", "[0,16]"), "number"},
      {"length_2_64", shaped("U8", "[18446744073709551616]", "[0,16]"), "unsigned integer"},
      {"negative_offset", shaped("U8", "[16]", "[-1,16]"), "unsigned integer"},
      {"exponent_in_an_offset", shaped("U8", "[16]", "[0,1.6e1]"), "unsigned integer"},
      {"one_offset", shaped("U8", "[16]", "[16]"), "fewer than 2"},
      {"three_offsets", shaped("U8", "[16]", "[0,16,16]"), "more than 2"},
      {"no_offset", shaped("U8", "[16]", "[]"), "fewer than 2"},
  };
}

std::vector<Case> offsets() {
  std::vector<std::pair<int, int>> all_at_once(10, {0, 16});
  return {
      {"offsets_reversed", shaped("U8", "[16]", "[16,0]"), "end before they begin"},
      {"offsets_past_the_end", shaped("U8", "[17]", "[0,17]"), "past the end"},
      {"offsets_near_2_64", shaped("U8", "[1]", "[18446744073709551614,18446744073709551615]"),
       "past the end"},
      {"ten_tensors_at_one_place", at(all_at_once), "overlap"},
      {"overlap_by_one", at({{0, 9}, {8, 16}}), "\"t0\" and \"t1\" overlap"},
      {"one_inside_another", at({{0, 16}, {4, 8}}), "overlap"},
      {"hole_at_the_start", at({{4, 16}}), "no tensor has these bytes"},
      {"hole_in_the_middle", at({{0, 4}, {8, 16}}), "[+4, +4)"},
      {"hole_before_an_empty_tensor_at_the_end", at({{0, 8}, {16, 16}}), "no tensor has"},
      {"shape_and_offsets_disagree", shaped("I32", "[2,2]", "[0,4]", 4), "takes 16 bytes"},
      {"shape_overflows", shaped("U8", "[2,18446744073709551614]", "[0,16]"), "overflows"},
      {"bits_overflow", shaped("U8", "[2,9223372036854775807]", "[0,16]"), "overflows"},
      {"bits_overflow_to_16", shaped("F64", "[2305843009213693954]", "[0,16]"), "overflows"},
      {"length_over_2_48", shaped("U8", "[281474976710657]", "[0,16]"), "data_offsets span 16"},
      {"sub_byte_not_whole_bytes", shaped("F4", "[31]", "[0,16]"), "not whole bytes"},
      {"sub_byte_wrong_size", shaped("F4", "[30]", "[0,16]"), "takes 15 bytes"},
      {"f6_not_whole_bytes", shaped("F6_E2M3", "[21]", "[0,16]"), "not whole bytes"},
  };
}

std::vector<Case> duplicates_and_metadata() {
  const std::string a = "\"a\":{" + kGood + "}";
  const auto with = [&](const std::string& metadata) {
    return safetensors_file("{\"__metadata__\":" + metadata + "," + a + "}", 16);
  };
  const std::string empty = R"("z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  return {
      {"name_twice", safetensors_file("{" + a + "," + a + "}", 16), "\"a\" stands in the header"},
      {"name_twice_empty", safetensors_file("{" + empty + "," + empty + "}", 0), "twice"},
      {"name_twice_by_escape", safetensors_file("{" + a + ",\"\\u0061\":{" + kGood + "}}", 16),
       "twice"},
      {"metadata_twice",
       safetensors_file(R"({"__metadata__":{},)" + a + R"(,"__metadata__":{}})", 16), "twice"},
      {"metadata_key_twice", with(R"({"k":"1","k":"2"})"), "\"k\" twice"},
      {"metadata_is_a_list", with(R"(["k"])"), "expected an object"},
      {"metadata_is_text", with(R"("k")"), "expected an object"},
      {"metadata_is_nested", with(R"({"k":{"l":"m"}})"), "expected a string"},
      {"metadata_value_is_a_number", with(R"({"k":1})"), "expected a string"},
      {"metadata_value_is_null", with(R"({"k":null})"), "expected a string"},
  };
}

// "[+4, +4)" in a reason counts from the start of the data.
std::string in_the_file(const std::string& reason, const std::string& bytes) {
  if (!reason.starts_with("[+")) return reason;
  const size_t comma = reason.find(',');
  const uint64_t offset = std::stoull(reason.substr(2, comma - 2)) + bytes.size() - 16;
  return "[" + std::to_string(offset) + reason.substr(comma);
}

TEST(HostileFile, is_refused_with_file_range_and_reason) {
  const Folder folder;
  for (const auto& table : {lengths(), json(), fields(), offsets(), duplicates_and_metadata()}) {
    for (const auto& hostile : table) {
      SCOPED_TRACE(hostile.name);
      const auto path = folder.write("x.safetensors", hostile.bytes);
      const auto text = message_of(ErrorCode::data, [&] { index_at(path); });
      EXPECT_TRUE(contains(text, path));
      EXPECT_TRUE(contains(text, " ["));
      EXPECT_TRUE(contains(text, in_the_file(hostile.reason, hostile.bytes)));
      EXPECT_LT(text.size(), 600U);
    }
  }
}

TEST(OddFile, is_accepted_where_safetensors_accepts_it) {
  const std::string a = "\"a\":{" + kGood + "}";
  const std::vector<Case> odd = {
      {"white_space_behind", safetensors_file("{" + a + "} \t\r\n ", 16), ""},
      {"white_space_before", safetensors_file(" \n{" + a + "}", 16), ""},
      {"unknown_fields", one(kGood + R"(,"x":{"y":[1,2.5,-3e9,null,true,"z"]})"), ""},
      {"fields_in_another_order", one(R"("data_offsets":[0,16],"shape":[4,4],"dtype":"I8")"), ""},
      {"metadata_behind", safetensors_file("{" + a + R"(,"__metadata__":{"k":"v"}})", 16), ""},
      {"metadata_null", safetensors_file(R"({"__metadata__":null,)" + a + "}", 16), ""},
      {"metadata_empty", safetensors_file(R"({"__metadata__":{},)" + a + "}", 16), ""},
      {"rank_0", shaped("F64", "[]", "[0,8]", 8), ""},
      {"no_elements", shaped("F64", "[0,4]", "[0,0]", 0), ""},
      {"no_elements_and_a_huge_length", shaped("U8", "[0,18446744073709551615]", "[0,0]", 0), ""},
      {"name_with_nul", safetensors_file(R"({"a\u0000b":{)" + kGood + "}}", 16), ""},
      {"empty_name", safetensors_file(R"({"":{)" + kGood + "}}", 16), ""},
      {"surrogate_pair", safetensors_file(R"({"\ud83d\ude00":{)" + kGood + "}}", 16), ""},
      {"out_of_order", at({{8, 16}, {0, 8}}), ""},
      {"empty_in_between", at({{0, 8}, {8, 8}, {8, 16}}), ""},
      {"odd_data_start", safetensors_file("{" + a + "}   ", 16), ""},
  };
  const Folder folder;
  for (const auto& file : odd) {
    SCOPED_TRACE(file.name);
    const auto path = folder.write("x.safetensors", file.bytes);
    EXPECT_NO_THROW({
      const Index index = index_at(path);
      EXPECT_GE(index.tensors.size(), 1U);
    });
  }
  EXPECT_TRUE(index_at(folder.write("x.safetensors", safetensors_file("{}", 0))).tensors.empty());
}

TEST(TruncatedFile, is_refused_at_every_length) {
  const std::string whole = safetensors_file(
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"U8","shape":[5],"data_offsets":[8,13]}})",
      13);
  const Folder folder;
  EXPECT_EQ(index_at(folder.write("x.safetensors", whole)).tensors.size(), 2U);
  for (size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    const auto path = folder.write("x.safetensors", whole.substr(0, size));
    const auto text = message_of(ErrorCode::data, [&] { index_at(path); });
    EXPECT_TRUE(contains(text, path));
  }
}

TEST(FlippedByte, never_does_worse_than_an_error) {
  const std::string whole = safetensors_file(
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  const Folder folder;
  for (size_t i = 0; i + 8 < whole.size(); ++i) {
    for (const int bit : {0, 1, 3, 5, 7}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      const auto path = folder.write("x.safetensors", bytes);
      try {
        for (const auto& tensor : index_at(path).tensors) {
          ASSERT_LE(tensor.offset + tensor.size, bytes.size());
        }
      } catch (const Error& error) {
        ASSERT_TRUE(contains(error.message(), path));
      }
    }
  }
}

TEST(ManyEntries, that_overlap_are_refused_before_anything_is_made_of_them) {
  std::string json = "{";
  for (int i = 0; i < 100'000; ++i) {
    json += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
            R"(":{"dtype":"F32","shape":[200,200],"data_offsets":[0,160000]})";
  }
  const Folder folder;
  const auto path = folder.write("x.safetensors", safetensors_file(json + "}", 160'000));
  EXPECT_TRUE(contains(message_of(ErrorCode::data, [&] { index_at(path); }), "overlap"));
}

TEST(ManyEmptyTensors, are_indexed) {
  std::string json = "{";
  for (int i = 0; i < 50'000; ++i) {
    json += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
            R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  }
  const Folder folder;
  const auto path = folder.write("x.safetensors", safetensors_file(json + "}", 0));
  EXPECT_EQ(index_at(path).tensors.size(), 50'000U);
}

}  // namespace
}  // namespace inrush::test
