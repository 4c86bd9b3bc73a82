#include "inrush/core/select.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <regex>
#include <thread>

#include "inrush/core/error.h"
#include "inrush/core/select_pattern.h"

namespace inrush {
namespace {

Index index_of(const std::vector<std::string>& names, const std::vector<uint64_t>& shape = {8, 6}) {
  Index index;
  index.blobs.emplace_back().name = "a.safetensors";
  for (const std::string& name : names) {
    TensorInfo& tensor = index.tensors.emplace_back();
    tensor.name = name;
    tensor.shape = shape;
    tensor.size = 48;
    tensor.offset = index.blobs[0].size;
    index.blobs[0].size += tensor.size;
  }
  index.metadata.resize(1);
  index.finish();
  return index;
}

const Index& llama() {
  static const Index index =
      index_of({"lm_head.weight", "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight",
                "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight",
                "model.layers.10.mlp.up_proj.weight", "model.norm.weight", "odd[0]"});
  return index;
}

// Names, each with its slice where it has one.
std::string chosen(const SelectOptions& options, const Index& index = llama()) {
  std::string text;
  for (const Want& want : select(index, options)) {
    text += (text.empty() ? "" : " ") + index.tensors[want.tensor].name;
    for (const SliceDim& dim : want.slice) {
      text += fmt::format("|{}:{}:{}", dim.start, dim.stop, dim.step);
    }
  }
  return text;
}

std::string refusal(const SelectOptions& options, const Index& index = llama()) {
  try {
    select(index, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    return error.message();
  }
  ADD_FAILURE() << "not refused";
  return {};
}

TEST(Select, everything_in_file_order_unless_told_otherwise) {
  EXPECT_EQ(select(llama(), {}).size(), 8);
  EXPECT_EQ(select(llama(), {})[3].tensor, 3);
}

TEST(Select, by_exact_name_glob_and_regular_expression) {
  EXPECT_EQ(chosen({.include = {"model.norm.weight"}}), "model.norm.weight");
  EXPECT_EQ(chosen({.include = {"model.layers.1.*"}}), "model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(chosen({.include = {"*mlp*"}}),
            "model.layers.0.mlp.up_proj.weight model.layers.1.mlp.up_proj.weight "
            "model.layers.10.mlp.up_proj.weight");
  EXPECT_EQ(chosen({.include = {"model.layers.[!0].*"}}), "model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(chosen({.include = {R"(re:^model\.layers\.\d{2}\.)"}}),
            "model.layers.10.mlp.up_proj.weight");
  EXPECT_EQ(chosen({.include = {"re:norm|head"}}), "lm_head.weight model.norm.weight");
  EXPECT_EQ(chosen({.include = {"odd[0]"}}), "odd[0]");  // an exact name comes first
  EXPECT_EQ(chosen({.include = {"odd[[]0]"}}), "odd[0]");
}

TEST(Select, excluding_and_asking) {
  EXPECT_EQ(chosen({.exclude = {"model.*", "not there", "odd*"}}), "lm_head.weight");
  EXPECT_EQ(chosen({.include = {"*norm*", "lm_head.weight"}, .exclude = {"lm_head.weight"}}),
            "model.norm.weight");
  const auto late = [](const TensorInfo& tensor) { return tensor.offset >= 6 * 48; };
  EXPECT_EQ(chosen({.predicate = late}), "model.norm.weight odd[0]");
}

TEST(Select, names_give_the_order) {
  EXPECT_EQ(chosen({.names = {"model.norm.weight", "lm_head.weight"}}),
            "model.norm.weight lm_head.weight");
  EXPECT_EQ(chosen({.exclude = {"lm*"}, .names = {"model.norm.weight", "lm_head.weight"}}),
            "model.norm.weight");
  EXPECT_NE(refusal({.names = {"lm_head.weight", "lm_head.weight"}}).find("twice"),
            std::string::npos);
}

TEST(Select, patterns_in_the_order_stand_for_what_nothing_before_them_names) {
  EXPECT_EQ(chosen({.names = {"model.norm*", "*mlp*", "lm_head.weight"}}),
            "model.norm.weight model.layers.0.mlp.up_proj.weight "
            "model.layers.1.mlp.up_proj.weight model.layers.10.mlp.up_proj.weight lm_head.weight");
  EXPECT_EQ(chosen({.names = {"model.layers.1.mlp.up_proj.weight", "re:layers.*mlp"}}),
            "model.layers.1.mlp.up_proj.weight model.layers.0.mlp.up_proj.weight "
            "model.layers.10.mlp.up_proj.weight");
  EXPECT_EQ(chosen({.names = {"odd[0]"}}), "odd[0]");
  EXPECT_NE(refusal({.names = {"not*"}}).find("order pattern \"not*\" matches none"),
            std::string::npos);
}

TEST(Select, an_unknown_name_is_refused_with_the_closest) {
  const std::string message = refusal({.include = {"model.layers.0.mlp.up_porj.weight"}});
  EXPECT_NE(message.find("closest: \"model.layers.0.mlp.up_proj.weight\""), std::string::npos)
      << message;
  EXPECT_NE(refusal({.names = {"model.norm.wieght"}}).find("\"model.norm.weight\""),
            std::string::npos);
  EXPECT_NE(refusal({.slices = {{"norm", parse_slices(":2")}}}).find("no tensor is named"),
            std::string::npos);
  EXPECT_EQ(refusal({.include = {"x"}}, index_of({})), "select: no tensor is named \"x\"");
}

TEST(Select, a_pattern_that_matches_nothing_is_refused) {
  EXPECT_NE(refusal({.include = {"vision.*"}}).find("matches none of 8"), std::string::npos);
  EXPECT_NE(refusal({.include = {"re:vision"}}).find("matches none"), std::string::npos);
  EXPECT_NE(refusal({.exclude = {"*norm*"}, .slices = {{"*norm*", parse_slices(":2")}}})
                .find("slices pattern"),
            std::string::npos);
}

TEST(Select, the_first_slice_that_matches_cuts) {
  EXPECT_EQ(chosen({.include = {"*norm*", "*head*"},
                    .slices = {{"*norm*", parse_slices("2:4")}, {"*", parse_slices(":, 1::2")}}}),
            "lm_head.weight|0:8:1|1:6:2 model.norm.weight|2:4:1");
}

TEST(Select, slices_mean_what_python_means) {
  const std::vector<uint64_t> shape{10, 7, 3};
  const auto normal = [&](std::string_view text) {
    std::string out;
    for (const SliceDim& dim : normalise(parse_slices(text), shape)) {
      out += fmt::format("{}:{}:{} ", dim.start, dim.stop, dim.step);
    }
    return out;
  };
  EXPECT_EQ(normal("0:4"), "0:4:1 ");
  EXPECT_EQ(normal(" 2 : 4 , :: 2 "), "2:4:1 0:7:2 ");
  EXPECT_EQ(normal("-3:"), "7:10:1 ");
  EXPECT_EQ(normal(":-3"), "0:7:1 ");
  EXPECT_EQ(normal("-100:100"), "");  // all of it
  EXPECT_EQ(normal("5:2"), "5:5:1 ");
  EXPECT_EQ(normal("100:"), "10:10:1 ");
  EXPECT_EQ(normal(":,:,1:"), "0:10:1 0:7:1 1:3:1 ");
  EXPECT_EQ(normal(":, :, :"), "");
  EXPECT_EQ(normal("+1:,"), "1:10:1 ");
  EXPECT_EQ(normal("-9223372036854775808:9223372036854775807"), "");
  for (const char* bad : {"", "5", "a:b", "1:2:3:4", "1 2:", "0:5,,",
                          "1.5:", "0x1:", "9223372036854775808:", "::0", "::-1", ":,:,:,:"}) {
    EXPECT_THROW(normal(bad), Error) << bad;
  }
}

TEST(Select, globs) {
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("", ""));
  EXPECT_FALSE(matches_glob("", "a"));
  EXPECT_FALSE(matches_glob("?", ""));
  EXPECT_TRUE(matches_glob("a*b*c", "a.b.b.c"));
  EXPECT_FALSE(matches_glob("a*b*c", "a.b.b.cd"));
  EXPECT_TRUE(matches_glob("[]a]", "]"));
  EXPECT_TRUE(matches_glob("[a-c]?", "bx"));
  EXPECT_FALSE(matches_glob("[^a-c]*", "bx"));
  EXPECT_TRUE(matches_glob("x[ab", "x[ab"));
  EXPECT_TRUE(matches_glob("[a-]", "-"));
  EXPECT_TRUE(matches_glob("**a**", "bab"));
  // Quadratic at worst, not exponential.
  EXPECT_FALSE(matches_glob("*a*a*a*a*a*a*a*a*a*a*b", std::string(5000, 'a')));
}

TEST(SelectRegex, agrees_with_the_standard_library) {
  std::mt19937_64 random(20);
  const std::vector<std::string> atoms{"a", "b",   ".",    "[ab]",     "[^a]", "\\d",    "\\w", "^",
                                       "$", "\\b", "(a|)", "(?:ab|b)", "\\.",  "[a-c1]", "1"};
  const std::vector<std::string> repeats{"", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "*?"};
  int found = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string pattern;
    for (uint64_t n = 1 + random() % 4; n > 0; --n) {
      const std::string& atom = atoms[random() % atoms.size()];
      const bool may_repeat = atom != "^" && atom != "$" && atom != "\\b";
      pattern += atom + (may_repeat ? repeats[random() % repeats.size()] : "");
      if (random() % 8 == 0) pattern += "|";
    }
    const Regex ours(pattern);
    const std::regex standard(pattern, std::regex::ECMAScript);
    for (int k = 0; k < 8; ++k) {
      std::string text;
      for (uint64_t n = random() % 7; n > 0; --n) text += "ab1.c"[random() % 5];
      const bool expected = std::regex_search(text, standard);
      ASSERT_EQ(ours.found_in(text), expected) << pattern << " in '" << text << "'";
      found += expected ? 1 : 0;
    }
  }
  EXPECT_GT(found, 1000);
}

TEST(SelectRegex, escapes_and_classes) {
  EXPECT_TRUE(Regex("\\x41\\u0042").found_in("AB"));
  EXPECT_TRUE(Regex("[\\d\\-x]+$").found_in("1-x"));
  EXPECT_FALSE(Regex("^[^\\w]$").found_in("a"));
  EXPECT_TRUE(Regex("a{,2}").found_in("a{,2}"));
  EXPECT_TRUE(Regex("^(?:a{2}){2}$").found_in("aaaa"));
  EXPECT_TRUE(Regex("\xC3\xA9").found_in("caf\xC3\xA9"));
  EXPECT_FALSE(Regex("[]").found_in("a"));
  EXPECT_TRUE(Regex("[^]").found_in("a"));
}

TEST(SelectRegex, what_is_no_regular_expression_is_refused) {
  for (const char* bad : {"(", ")", "a)", "*a", "[a", "[b-a]", "a\\", "(a)\\1", "(?=a)", "(?<n>a)",
                          "\\q", "\\x4", "a{3,2}", "[\xC3\xA9]", "\\u00e9"}) {
    EXPECT_THROW(Regex{bad}, Error) << bad;
  }
  EXPECT_THROW(Regex{std::string(5000, 'a')}, Error);
  EXPECT_THROW(Regex{std::string(2000, '(') + std::string(2000, ')')}, Error);
  EXPECT_THROW(Regex{"((a{1000}){1000}){1000}"}, Error);
  EXPECT_THROW(Regex{"((){100000}){100000}"}, Error);
}

// What blows the stack of one that recurses, and the patience of one that backtracks.
TEST(SelectRegex, hostile_names_cost_neither_stack_nor_time) {
  bool found = true;
  std::thread([&] {
    const std::string name(2'000'000, 'a');
    found = Regex("^(a|aa)+$").found_in(name + "b") || Regex("(a*)*b$").found_in(name) ||
            Regex("(.|a)*c").found_in(name);
  }).join();
  EXPECT_FALSE(found);
}

TEST(Select, a_hundred_thousand_names) {
  std::vector<std::string> names;
  for (int i = 0; i < 100'000; ++i) {
    names.push_back(fmt::format("model.layers.{}.mlp.experts.{}.weight", i / 256, i % 256));
  }
  const Index index = index_of(names);
  EXPECT_EQ(select(index, {.include = {"*.experts.7.*"}}).size(), 391);
  EXPECT_EQ(select(index, {.include = {R"(re:experts\.7\.)"}}).size(), 391);
  EXPECT_EQ(select(index, {.names = names}).size(), names.size());
  EXPECT_NE(refusal({.include = {"model.layers.3.mlp.expert.7.weight"}}, index)
                .find("model.layers.3.mlp.experts.7.weight"),
            std::string::npos);
}

}  // namespace
}  // namespace inrush
