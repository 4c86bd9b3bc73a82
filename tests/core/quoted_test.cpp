#include "inrush/core/quoted.h"

#include <gtest/gtest.h>

namespace inrush {
namespace {

TEST(Quoted, leaves_printable_text_of_any_language_alone) {
  EXPECT_EQ(quoted("model.layers.0.weight"), "\"model.layers.0.weight\"");
  EXPECT_EQ(quoted("größe 重み"), "\"größe 重み\"");
  EXPECT_EQ(quoted(""), "\"\"");
}

TEST(Quoted, escapes_what_could_drive_a_terminal_or_end_the_quotes) {
  EXPECT_EQ(quoted("\x1b[2Ja\nb"), "\"\\x1b[2Ja\\x0ab\"");
  EXPECT_EQ(quoted(std::string("a\0b", 3)), "\"a\\x00b\"");
  EXPECT_EQ(quoted("\xc2\x9b"), "\"\\xc2\\x9b\"");
  EXPECT_EQ(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
}

TEST(Quoted, escapes_bytes_that_are_no_utf8) {
  EXPECT_EQ(quoted("a\xff"), "\"a\\xff\"");
  EXPECT_EQ(quoted("\xe9\x87"), "\"\\xe9\\x87\"");
}

TEST(Quoted, cuts_long_names_in_the_middle) {
  const std::string text = quoted(std::string(10000, 'a') + "end");
  EXPECT_LT(text.size(), 200U);
  EXPECT_NE(text.find("..."), std::string::npos);
  EXPECT_TRUE(text.ends_with("end\""));
}

}  // namespace
}  // namespace inrush
