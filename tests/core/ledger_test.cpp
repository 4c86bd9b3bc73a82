#include "inrush/core/ledger.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "inrush/core/error.h"
#include "inrush/core/sha256.h"

namespace inrush {
namespace {

const Identity kIdentity{1, 2, 1000, -3, 4, "\"etag 1\""};

Ledger with_blob(const std::string& name = "a") {
  Ledger ledger;
  ledger.add_blob(name, kIdentity);
  return ledger;
}

ErrorCode code_of(auto action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing thrown";
  return ErrorCode::cancelled;
}

using Intervals = std::vector<Interval>;

TEST(Ledger, joins_neighbours_and_overlaps) {
  Ledger ledger = with_blob();
  ledger.record("a", {100, 50});
  ledger.record("a", {200, 50});
  EXPECT_EQ(ledger.done("a"), (Intervals{{100, 50}, {200, 50}}));
  ledger.record("a", {150, 50});
  EXPECT_EQ(ledger.done("a"), (Intervals{{100, 150}}));
  ledger.record("a", {90, 20});
  ledger.record("a", {240, 20});
  ledger.record("a", {120, 10});
  ledger.record("a", {500, 0});
  EXPECT_EQ(ledger.done("a"), (Intervals{{90, 170}}));
  EXPECT_EQ(ledger.missing("a"), (Intervals{{0, 90}, {260, 740}}));
  EXPECT_EQ(ledger.bytes_done(), 170);
  ledger.record("a", {0, 1000});
  EXPECT_EQ(ledger.done("a"), (Intervals{{0, 1000}}));
  EXPECT_TRUE(ledger.missing("a").empty());
}

TEST(Ledger, covers_only_what_is_done) {
  Ledger ledger = with_blob();
  ledger.record("a", {100, 100});
  EXPECT_TRUE(ledger.covers("a", {100, 100}));
  EXPECT_TRUE(ledger.covers("a", {199, 1}));
  EXPECT_TRUE(ledger.covers("a", {5, 0}));
  EXPECT_FALSE(ledger.covers("a", {99, 2}));
  EXPECT_FALSE(ledger.covers("a", {199, 2}));
  EXPECT_FALSE(ledger.covers("a", {200, 1}));
  EXPECT_FALSE(ledger.covers("a", {150, ~0ULL}));
  EXPECT_FALSE(ledger.covers("b", {0, 0}));
}

TEST(Ledger, agrees_with_a_bitmap) {
  std::mt19937_64 random(5);
  Ledger ledger = with_blob();
  std::vector<bool> bytes(1000);
  for (int i = 0; i < 300; ++i) {
    const uint64_t offset = random() % 1000;
    const uint64_t size = random() % std::min<uint64_t>(20, 1001 - offset);
    ledger.record("a", {offset, size});
    for (uint64_t at = offset; at < offset + size; ++at) bytes[at] = true;
    std::vector<bool> done(1000);
    std::vector<bool> missing(1000);
    for (const Interval& run : ledger.done("a")) {
      for (uint64_t at = 0; at < run.size; ++at) done[run.offset + at] = true;
    }
    for (const Interval& run : ledger.missing("a")) {
      for (uint64_t at = 0; at < run.size; ++at) missing[run.offset + at] = true;
    }
    ASSERT_EQ(done, bytes);
    missing.flip();
    ASSERT_EQ(missing, bytes);
    ASSERT_EQ(Ledger::parse(ledger.serialise()), ledger);
  }
}

TEST(Ledger, digests_belong_to_their_interval) {
  Ledger ledger = with_blob();
  ledger.record("a", {0, 10}, "x");
  ledger.record("a", {0, 20}, "y");
  ledger.record("a", {0, 10}, "x");
  EXPECT_EQ(ledger.digest("a", {0, 10}), "x");
  EXPECT_EQ(ledger.digest("a", {0, 20}), "y");
  EXPECT_EQ(ledger.digest("a", {0, 5}), "");
  EXPECT_EQ(ledger.digest("b", {0, 10}), "");
  EXPECT_EQ(ledger.done("a"), (Intervals{{0, 20}}));
  EXPECT_EQ(code_of([&] { ledger.record("a", {0, 10}, "z"); }), ErrorCode::data);
}

TEST(Ledger, bytes_outside_a_blob_are_refused) {
  Ledger ledger = with_blob();
  EXPECT_EQ(code_of([&] { ledger.record("b", {0, 1}); }), ErrorCode::usage);
  EXPECT_EQ(code_of([&] { ledger.record("a", {1000, 1}); }), ErrorCode::usage);
  EXPECT_EQ(code_of([&] { ledger.record("a", {1, ~0ULL}); }), ErrorCode::usage);
  EXPECT_EQ(ledger, with_blob());
}

TEST(Ledger, a_source_that_changed_is_refused) {
  Ledger ledger = with_blob();
  ledger.add_blob("a", kIdentity);
  Identity changed = kIdentity;
  changed.mtime_ns += 1;
  EXPECT_EQ(code_of([&] { ledger.add_blob("a", changed); }), ErrorCode::data);
  EXPECT_EQ(ledger.identity("a"), kIdentity);
  EXPECT_EQ(ledger.identity("b"), std::nullopt);

  Ledger other;
  other.add_blob("0", kIdentity);
  other.add_blob("a", changed);
  other.record("0", {0, 5});
  EXPECT_EQ(code_of([&] { ledger.merge(other); }), ErrorCode::data);
  EXPECT_EQ(ledger, with_blob());  // nothing of it was taken
}

TEST(Ledger, merging_is_the_union_in_any_order) {
  Ledger a = with_blob();
  a.record("a", {0, 100}, "first");
  a.record("a", {300, 100});
  Ledger b = with_blob();
  b.add_blob("b", kIdentity);
  b.record("a", {100, 100}, "second");
  b.record("b", {7, 7});
  Ledger ab = a;
  ab.merge(b);
  Ledger ba = b;
  ba.merge(a);
  EXPECT_EQ(ab, ba);
  EXPECT_EQ(ab.done("a"), (Intervals{{0, 200}, {300, 100}}));
  EXPECT_EQ(ab.bytes_done(), 307);
  EXPECT_EQ(ab.digest("a", {100, 100}), "second");
  ab.merge(ab);
  EXPECT_EQ(ab, ba);
}

Ledger rich() {
  Ledger ledger = with_blob("s3://bucket/a model.safetensors");
  ledger.add_blob(std::string("\n\0%20\xFF", 6), {0, 0, ~0ULL, INT64_MIN, INT64_MAX, {}});
  ledger.add_blob("", kIdentity);
  ledger.record("", {0, 1000}, "d41d8cd9");
  ledger.record("", {5, 10}, "a digest\nof two lines");
  ledger.record(std::string("\n\0%20\xFF", 6), {1ULL << 63, 12345});
  return ledger;
}

TEST(Ledger, the_text_gives_back_the_ledger) {
  EXPECT_EQ(Ledger::parse(rich().serialise()), rich());
  EXPECT_EQ(Ledger::parse(Ledger().serialise()), Ledger());
  EXPECT_TRUE(with_blob().serialise().starts_with(
      "inrush ledger 1\nblob a 1 2 1000 -3 4 %22etag%201%22\nsha256 "));
}

TEST(Ledger, truncated_and_damaged_texts_are_refused) {
  const std::string text = rich().serialise();
  for (size_t size = 0; size < text.size(); ++size) {
    ASSERT_EQ(code_of([&] { Ledger::parse(text.substr(0, size)); }), ErrorCode::data) << size;
  }
  for (size_t at = 0; at < text.size(); ++at) {
    std::string damaged = text;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    ASSERT_EQ(code_of([&] { Ledger::parse(damaged); }), ErrorCode::data) << at;
  }
}

// Texts whose checksum is right and which are wrong all the same.
TEST(Ledger, hostile_texts_are_refused) {
  const auto signed_text = [](const std::string& lines) {
    const std::string body = "inrush ledger 1\n" + lines;
    Sha256 hash;
    hash.add(body);
    return body + fmt::format("sha256 {}\n", hash.finish());
  };
  const std::string blob = "blob a 1 2 1000 3 4 %\n";
  EXPECT_EQ(Ledger::parse(signed_text(blob + "done 0 10\ndone 20 10\n")).bytes_done(), 20);
  for (const std::string& bad : {std::string("done 0 10\n"),
                                 blob + "done 0\n",
                                 blob + "done 0 10 10\n",
                                 blob + "done 0  10\n",
                                 blob + "done 20 10\ndone 0 10\n",
                                 blob + "done 0 10\ndone 10 10\n",
                                 blob + "done 0 1001\n",
                                 blob + "done 18446744073709551615 2\n",
                                 blob + "done 0 18446744073709551616\n",
                                 blob + "done 00 10\n",
                                 blob + "done -0 10\n",
                                 blob + "done +1 10\n",
                                 blob + "done 1 0\n",
                                 blob + "digest 0 10 x\n",
                                 blob + "done 0 10\ndigest 0 10 %\n",
                                 blob + "done 0 10\ndigest 0 10 x\ndigest 0 10 y\n",
                                 blob + blob,
                                 blob + "\n",
                                 blob + "blob A 1 2 3 4 5 %\n",
                                 std::string("blob % 1 2 -1 3 4 %\n"),
                                 std::string("blob %4 1 2 1 3 4 %\n"),
                                 std::string("blob %61 1 2 1 3 4 %\n"),
                                 std::string("blob %zz 1 2 1 3 4 %\n"),
                                 std::string("blob a%  1 2 1 3 4 %\n"),
                                 blob + "done 0 10",
                                 std::string("what\n"),
                                 std::string("sha256 0\n")}) {
    EXPECT_EQ(code_of([&] { Ledger::parse(signed_text(bad)); }), ErrorCode::data) << bad;
  }
}

}  // namespace
}  // namespace inrush
