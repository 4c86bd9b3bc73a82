#include "inrush/policy/residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/policy/filesystem.h"
#include "tests/policy/folders.h"
#include "tests/policy/places.h"

namespace inrush {
namespace {

using namespace testing_places;

constexpr uint64_t kWindow = Residency::kWindow;
constexpr uid_t kNobody = 65534;

std::vector<bool> all_windows(const Blob& blob) {
  return std::vector<bool>((blob.size + kWindow - 1) / kWindow, true);
}

Residency probe(const std::string& path) {
  const Blob blob = open_blob(path);
  // A busy machine may take long over a look; what time does is tested apart.
  const auto later = Clock::now() + std::chrono::seconds(60);
  return probe_residency(blob, ask_filesystem(blob), all_windows(blob), {later, later});
}

double share_of(const Residency& residency, Warmth warmth) {
  return static_cast<double>(
             std::count(residency.windows.begin(), residency.windows.end(), warmth)) /
         static_cast<double>(residency.windows.size());
}

std::string text_of(const Residency& residency) {
  std::string text = residency.method + ": ";
  for (const Warmth warmth : residency.windows) text += "cwms?"[static_cast<int>(warmth)];
  return text;
}

struct Case {
  const char* place;
  uid_t user;
  const char* method;  // the probe that should answer
};

std::ostream& operator<<(std::ostream& out, const Case& it) {
  return out << it.place << (it.user == 0 ? " as root" : " as nobody");
}

class ResidencyTest : public testing::TestWithParam<Case> {
 protected:
  static constexpr uint64_t kSize = 48 * kMiB + 12345;

  ResidencyTest() : folder_(GetParam().place) {
    folder_.put("f", kSize);
    folder_.mount();
    path_ = folder_.path("f");
  }
  void SetUp() override {
    if (!folder_.refusal.empty()) GTEST_SKIP() << folder_.refusal;
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  }
  // 0 where `agrees` does with what is seen of the file as `arrange` left it; the child prints
  // what it saw instead. The kernel may read ahead or take pages back while one looks, and on a
  // busy machine memory takes as long as a disk: then the verdict counts for nothing, and all is
  // done again.
  template <typename Arrange, typename Agrees>
  int judged(Arrange arrange, Agrees agrees) {
    int verdict = -1;
    for (int attempt = 0; attempt < 10 && verdict != 0; ++attempt) {
      arrange();
      const auto before = resident_pages(path_);
      verdict = run_as(GetParam().user, [&] {
        const Residency residency = probe(path_);
        const bool right = residency.method == GetParam().method && agrees(residency, before);
        if (!right) std::fprintf(stderr, "seen by %s\n", text_of(residency).c_str());
        return right ? 0 : 1;
      });
      const bool by_time = GetParam().method == std::string_view("timing");
      if (!by_time && resident_pages(path_) == before) break;
    }
    return verdict;
  }

  Folder folder_;
  std::string path_;
};

using Pages = std::vector<bool>;

TEST_P(ResidencyTest, a_cold_file_is_cold) {
  if (GetParam().method == std::string_view("tmpfs")) GTEST_SKIP() << "tmpfs is never cold";
  EXPECT_EQ(
      judged([&] { drop(path_); },
             [](const Residency& seen, const Pages&) { return share_of(seen, Warmth::cold) == 1; }),
      0);
  const auto pages = resident_pages(path_);
  EXPECT_LT(std::count(pages.begin(), pages.end(), true), 2000) << "looking must not load the file";
}

TEST_P(ResidencyTest, a_warm_file_is_warm) {
  const auto whole = [](const Pages& pages) {
    return std::find(pages.begin(), pages.end(), false) == pages.end();
  };
  bool kept = false;  // the kernel may take pages back at once
  const auto warmed = [&] {
    warm(path_);
    kept = whole(resident_pages(path_));
  };
  const int verdict = judged(warmed, [&](const Residency& seen, const Pages& truth) {
    return !whole(truth) || (share_of(seen, Warmth::warm) == 1 && seen.warm_bytes == kSize);
  });
  EXPECT_EQ(verdict, 0);
  if (!kept) GTEST_SKIP() << "the kernel does not keep the pages of this file";
}

TEST_P(ResidencyTest, a_half_warm_file_is_told_by_windows) {
  if (GetParam().method == std::string_view("tmpfs")) GTEST_SKIP() << "tmpfs is never cold";
  const auto halves = [&] {
    drop(path_);
    warm_parts(path_, 8 * kMiB, [](uint64_t i) { return i < 3; });
  };
  EXPECT_EQ(judged(halves,
                   [](const Residency& seen, const Pages& truth) {
                     size_t wrong = 0;
                     for (size_t i = 0; i < seen.windows.size(); ++i) {
                       const bool warm = truth[std::min(i * 512 + 256, truth.size() - 1)];
                       if (seen.windows[i] != (warm ? Warmth::warm : Warmth::cold)) ++wrong;
                     }
                     return wrong <= 1;
                   }),
            0);
}

TEST_P(ResidencyTest, a_cold_file_with_a_warm_head_is_cold_but_for_the_head) {
  if (GetParam().method == std::string_view("tmpfs")) GTEST_SKIP() << "tmpfs is never cold";
  const auto head = [&] {
    drop(path_);
    warm_parts(path_, 128 << 10, [](uint64_t i) { return i == 0; });
  };
  EXPECT_EQ(judged(head, [](const Residency& seen,
                            const Pages&) { return share_of(seen, Warmth::cold) > 0.9; }),
            0);
}

TEST_P(ResidencyTest, random_single_pages_are_speckled) {
  const std::string method = GetParam().method;
  if (method == "tmpfs") GTEST_SKIP() << "tmpfs is never cold";
  if (GetParam().place == std::string_view("squashfs")) GTEST_SKIP() << "it reads whole blocks";
  const auto speckles = [&] {
    drop(path_);
    std::mt19937 random(7);
    warm_parts(path_, 4096, [&](uint64_t) { return random() % 2 == 0; });
  };
  EXPECT_EQ(judged(speckles,
                   [](const Residency& seen, const Pages&) {
                     return share_of(seen, Warmth::speckled) > 0.9 && seen.warm_bytes == 0;
                   }),
            0);
}

TEST_P(ResidencyTest, runs_of_256_kib_are_mixed) {
  if (GetParam().method == std::string_view("tmpfs")) GTEST_SKIP() << "tmpfs is never cold";
  const auto runs = [&] {
    drop(path_);
    warm_parts(path_, 256 << 10, [](uint64_t i) { return i % 2 == 0; });
  };
  EXPECT_EQ(judged(runs,
                   [](const Residency& seen, const Pages&) {
                     return share_of(seen, Warmth::mixed) > 0.5 &&
                            share_of(seen, Warmth::speckled) == 0;
                   }),
            0);
}

INSTANTIATE_TEST_SUITE_P(
    Everywhere, ResidencyTest,
    testing::Values(Case{"plain", 0, "cachestat"}, Case{"plain", kNobody, "nowait"},
                    Case{"overlay", 0, "mincore"}, Case{"overlay", kNobody, "timing"},
                    Case{"squashfs", 0, "cachestat"}, Case{"squashfs", kNobody, "timing"},
                    Case{"tmpfs", 0, "tmpfs"}, Case{"tmpfs", kNobody, "tmpfs"}),
    [](const auto& test) {
      return std::string(test.param.place) + (test.param.user == 0 ? "_owner" : "_other");
    });

// A probe over an imaginary file, for sizes and patterns that no test should write to a disk.
class ImaginaryProbe : public Probe {
 public:
  ImaginaryProbe(bool counts, std::function<bool(uint64_t page)> warm)
      : counts_(counts), warm_(std::move(warm)) {}
  [[nodiscard]] ProbeTraits traits() const override {
    return {counts_ ? "cachestat" : "nowait",
            counts_,
            32,
            false,
            counts_ ? 512U : 32U,
            counts_ ? 1024U : 96U};
  }
  std::optional<uint64_t> resident(uint64_t offset, uint64_t size) override {
    ++asked;
    const uint64_t first = offset / page_size();
    if (!counts_) return warm_(first) ? 1 : 0;
    uint64_t count = 0;
    for (uint64_t page = first; page * page_size() < offset + size; ++page) count += warm_(page);
    return count;
  }
  uint32_t asked = 0;

 private:
  bool counts_;
  std::function<bool(uint64_t)> warm_;
};

ProbeTime ample_time() {
  const auto later = Clock::now() + std::chrono::seconds(60);
  return {later, later};
}

TEST(ResidencyJudge, a_boundary_anywhere_is_found_by_few_looks) {
  const uint64_t windows = 4000;
  for (const uint64_t boundary : {1U, 17U, 1999U, 3333U, 3999U}) {
    ImaginaryProbe half(false, [&](uint64_t page) { return page / 512 >= boundary; });
    const auto seen =
        probe_residency_by(half, windows * kWindow, std::vector<bool>(windows, true), ample_time());
    for (uint64_t i = 0; i < windows; ++i) {
      ASSERT_EQ(seen.windows[i], i >= boundary ? Warmth::warm : Warmth::cold) << i;
    }
    EXPECT_LE(half.asked, 128U);
  }
}

TEST(ResidencyJudge, unwanted_windows_are_not_asked_about) {
  std::vector<bool> wanted(100, false);
  wanted[40] = wanted[41] = true;
  ImaginaryProbe cold(true, [](uint64_t page) {
    EXPECT_GE(page, 40U * 512);
    EXPECT_LT(page, 42U * 512);
    return false;
  });
  const auto seen = probe_residency_by(cold, 100 * kWindow, wanted, ample_time());
  EXPECT_EQ(cold.asked, 1U);
  EXPECT_EQ(seen.windows[39], Warmth::unknown);
  EXPECT_EQ(seen.windows[40], Warmth::cold);
}

TEST(ResidencyJudge, without_time_counting_turns_into_sampling) {
  const uint64_t windows = 50'000;  // 100 GiB
  ImaginaryProbe warm(true, [](uint64_t) { return true; });
  const auto seen = probe_residency_by(warm, windows * kWindow, std::vector<bool>(windows, true),
                                       ProbeTime{Clock::now(), Clock::now(), 5});
  EXPECT_LE(warm.asked, 512U);
  EXPECT_EQ(seen.warm_bytes, windows * kWindow);
}

TEST(ResidencyJudge, without_time_to_look_it_is_unknown) {
  ImaginaryProbe warm(false, [](uint64_t) { return true; });
  const auto seen = probe_residency_by(warm, 100 * kWindow, std::vector<bool>(100, true),
                                       ProbeTime{Clock::now(), Clock::now(), 0});
  EXPECT_EQ(share_of(seen, Warmth::unknown), 1);
  EXPECT_EQ(warm.asked, 0U);
}

TEST(ResidencyJudge, a_tail_shorter_than_a_window_counts_its_own_bytes) {
  ImaginaryProbe warm(true, [](uint64_t) { return true; });
  const uint64_t size = kWindow + 5000;
  const auto seen = probe_residency_by(warm, size, {true, true}, ample_time());
  EXPECT_EQ(seen.warm_bytes, size);
}

TEST(ResidencyJudge, when_time_runs_out_the_looks_so_far_lie_evenly) {
  ImaginaryProbe half(false, [&](uint64_t page) { return page >= 500U * 512; });
  const auto seen = probe_residency_by(half, 1000 * kWindow, std::vector<bool>(1000, true),
                                       ProbeTime{Clock::now(), Clock::now(), 5});
  EXPECT_EQ(seen.windows[0], Warmth::cold);
  EXPECT_EQ(seen.windows[200], Warmth::cold);
  EXPECT_EQ(seen.windows[800], Warmth::warm);
  EXPECT_EQ(half.asked, 10U);
}

// A sparse file as large as a model: its pages are cold as others, though reading one is free.
TEST(ResidencyProbes, a_large_cold_file_is_cold_to_those_that_ask_the_kernel) {
  Folder folder("plain");
  folder.put("f", 4096);
  const std::string path = folder.path("f");
  ASSERT_EQ(::truncate(path.c_str(), 3LL << 30), 0);
  const Blob blob = open_blob(path);
  const FilesystemFact filesystem = ask_filesystem(blob);
  for (const ProbeRow& row : probe_table().subspan(0, 2)) {
    drop(path);
    std::string refusal;
    const auto made = row.make(blob, filesystem, refusal);
    ASSERT_TRUE(made) << refusal;
    const auto start = Clock::now();
    const auto seen = probe_residency_by(*made, blob.size, all_windows(blob), ample_time());
    const std::chrono::duration<double, std::milli> took = Clock::now() - start;
    std::printf("%s: %.2f ms for 3 GiB\n", row.name, took.count());
    EXPECT_EQ(share_of(seen, Warmth::cold), 1) << row.name;
  }
}

}  // namespace
}  // namespace inrush
