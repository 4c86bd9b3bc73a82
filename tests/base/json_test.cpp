#include "inrush/base/json.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace inrush {
namespace {

// The reason for which a document is refused; "" if it is not.
std::string fault_of(const std::string& text) {
  const JsonText json(text);
  try {
    JsonReader reader(json);
    std::string_view key;
    reader.enter_object();
    while (reader.next_field(key)) reader.skip();
    reader.finish();
  } catch (const JsonFault& fault) {
    EXPECT_LE(fault.offset, text.size());
    return fault.reason.empty() ? "no reason" : fault.reason;
  }
  return "";
}

TEST(JsonReader, passes_over_every_kind_of_value) {
  EXPECT_EQ(
      fault_of(R"({"a":[1,-2,3.5,1e9,[],{}],"b":{"c":null,"d":true,"e":false},"f":"\u00e9"})"), "");
  EXPECT_EQ(fault_of(" \t\r\n{ } \n"), "");
}

TEST(JsonReader, checks_what_it_passes_over) {
  for (const char* text : {
           R"({"a":nulx})",
           R"({"a":tru})",
           R"({"a":01})",
           R"({"a":1.})",
           R"({"a":+1})",
           R"({"a":[1,]})",
           R"({"a":[1 2]})",
           R"({"a":{"b":1,}})",
           R"({"a":{"b" 1}})",
           R"({"a":{1:2}})",
           R"({"a":"\x"})",
           R"({"a":"\ud800"})",
           R"({"a":"x"y})",
           R"({"a":[1})",
           R"({"a":{"b":[}})",
           R"({"a":1]})",
           R"({"a":1)",
           R"({"a":)",
           R"({"a)",
           R"({,})",
           R"({"a"})",
           "{\"a\":\"\n\"}",
           "{\"a\":\"\xff\"}",
           "{\"\xc0\xaf\":1}",
           "",
           " ",
           "[]",
           "1",
           "nul",
           "}",
           R"({}{})",
           R"({} x)",
           R"({"a":NaN})",
           R"({"a":Infinity})",
           R"({'a':1})",
           R"({"a":1/**/})",
       }) {
    EXPECT_NE(fault_of(text), "") << text;
  }
  EXPECT_NE(fault_of(std::string("{}\0", 3)), "");
}

TEST(JsonReader, reads_strings_with_escapes_and_without) {
  const std::string long_text(100, 'x');
  const JsonText text(R"({"a":"plain","b\u0041":"\"","":"","c\\":"\\","d":"é\n","e":")" +
                      long_text + R"(","f\"":"last"})");
  JsonReader reader(text);
  std::vector<std::pair<std::string, std::string>> found;
  std::string_view key;
  reader.enter_object();
  while (reader.next_field(key)) {
    std::string name(key);
    found.emplace_back(std::move(name), reader.string());
  }
  reader.finish();
  const std::vector<std::pair<std::string, std::string>> wanted{
      {"a", "plain"}, {"bA", "\""},     {"", ""},       {"c\\", "\\"},
      {"d", "é\n"},   {"e", long_text}, {"f\"", "last"}};
  EXPECT_EQ(found, wanted);
}

TEST(JsonReader, limits_nesting) {
  const auto nested = [](size_t depth) {
    return R"({"a":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_EQ(fault_of(nested(JsonReader::kDeepest - 1)), "");
  EXPECT_NE(fault_of(nested(JsonReader::kDeepest)).find("nested"), std::string::npos);
  EXPECT_NE(fault_of(nested(1'000'000)).find("nested"), std::string::npos);
  EXPECT_NE(fault_of(R"({"a":)" + std::string(1'000'000, '[')), "");
}

TEST(JsonReader, takes_unsigned_integers_only_where_one_is_due) {
  const auto read = [](const std::string& number) {
    const JsonText json("[" + number + "]");
    JsonReader reader(json);
    reader.enter_array();
    EXPECT_TRUE(reader.next_element());
    return reader.unsigned_integer();
  };
  EXPECT_EQ(read("0"), 0U);
  EXPECT_EQ(read("18446744073709551615"), UINT64_MAX);
  for (const char* text : {"-0", "-1", "1.0", "1e3", "1E3", "0.5", "01", "\"1\"", "null", "true",
                           "[]", "{}", "18446744073709551616", "99999999999999999999999", "0x1"}) {
    EXPECT_THROW(read(text), JsonFault) << text;
  }
}

TEST(JsonReader, says_where_the_fault_is) {
  const std::string text = R"({"a":1,"b":-5})";
  const JsonText json(text);
  JsonReader reader(json);
  std::string_view key;
  reader.enter_object();
  ASSERT_TRUE(reader.next_field(key));
  EXPECT_EQ(key, "a");
  EXPECT_EQ(reader.unsigned_integer(), 1U);
  ASSERT_TRUE(reader.next_field(key));
  EXPECT_EQ(key, "b");
  try {
    reader.unsigned_integer();
    FAIL();
  } catch (const JsonFault& fault) {
    EXPECT_EQ(fault.offset, text.find("-5"));
  }
}

TEST(JsonString, escapes_no_more_than_must_be) {
  EXPECT_EQ(json_string("a\"\\/\n\x01\x7f"
                        "é"),
            "\"a\\\"\\\\/\\n\\u0001\x7f"
            "é\"");
}

TEST(JsonFileName, any_bytes_come_back_and_the_text_is_utf8) {
  const std::string names[] = {
      "plain", "\xff", "a\xc3\xa9\x80\"\\\n", "\xed\xb2\x80", "\\udcff", "\xf0\x9f\x98\x80\xfe",
      ""};
  for (const std::string& name : names) {
    const std::string written = "[" + json_file_name(name) + "]";
    EXPECT_TRUE(is_utf8(written));
    const JsonText text(written);
    JsonReader reader(text);
    reader.enter_array();
    ASSERT_TRUE(reader.next_element());
    EXPECT_EQ(reader.file_name(), name) << written;
    EXPECT_FALSE(reader.next_element());
    reader.finish();
  }
}

TEST(JsonFileName, other_halves_of_surrogate_pairs_are_refused) {
  for (const char* written :
       {"[\"\\udc7f\"]", "[\"\\ud800\"]", "[\"a\\ud800\\udcff\\udc00\"]", "[\"\\ud800\\u12\"]",
        "[\"\\udc80\\ud8\"]", "[\"\\udc80\\ud800\\\"\"]", "[\"\\ud800\\ud800\"]"}) {
    const JsonText text{std::string_view(written)};
    JsonReader reader(text);
    reader.enter_array();
    ASSERT_TRUE(reader.next_element());
    EXPECT_THROW(reader.file_name(), JsonFault) << written;
  }
}

}  // namespace
}  // namespace inrush
