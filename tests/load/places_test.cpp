// Whole loads on filesystems of several kinds, by the files' owner and by another user, cold, half
// cold and warm: the bytes are right, and the choice is the one that this place calls for.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/load.h"
#include "inrush/save.h"
#include "tests/policy/folders.h"

namespace inrush {
namespace {

using namespace testing_places;

struct PlaceCase {
  const char* place;
  uid_t user;
  const char* way;         // Choice::name by default
  const char* never_cold;  // and with mapping=never, cold
};

std::ostream& operator<<(std::ostream& out, const PlaceCase& it) {
  return out << it.place << (it.user == 0 ? " as root" : " as nobody");
}

class LoadOnPlaces : public testing::TestWithParam<PlaceCase> {
 protected:
  LoadOnPlaces() : folder_(GetParam().place) {
    ::setenv("INRUSH_PROFILE", "off", 1);
    for (uint64_t i = 0; i < 24; ++i) {
      // Sizes of all sorts, so that tensors begin at any offset.
      bytes_["t" + std::to_string(i)] = random_bytes((i % 5 == 0 ? 3 * kMiB : 40'000) + i * 8, i);
    }
    std::vector<SaveTensor> tensors;
    for (const auto& [name, bytes] : bytes_) {
      const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
      tensors.push_back({name, Dtype::u8, {bytes.size()}, {data, bytes.size()}});
    }
    folder_.put("model.safetensors", 0);
    save_file(folder_.source("model.safetensors"), std::move(tensors), {});
    ::chmod(folder_.source("model.safetensors").c_str(), 0644);
    folder_.mount();
    path_ = folder_.path("model.safetensors");
  }
  void SetUp() override {
    if (!folder_.refusal.empty()) GTEST_SKIP() << folder_.refusal;
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  }

  // 0 if every tensor came whole, by this way.
  int load(const LoadOptions& options, const std::string& way) {
    return run_as(GetParam().user, [&] {
      try {
        Load load(Checkpoint::open(folder_.at()), options);
        size_t count = 0;
        while (const auto tensor = load.next()) {
          const std::string& expected = bytes_.at(tensor->name);
          if (tensor->memory.size != expected.size() ||
              std::memcmp(tensor->memory.data, expected.data(), expected.size()) != 0) {
            std::fprintf(stderr, "%s is wrong\n", tensor->name.c_str());
            return 1;
          }
          ++count;
        }
        const LoadStats stats = load.stats();
        // Reading the header has warmed the beginning of the file.
        const bool as_told = stats.choice == way || stats.choice == "pread_buffered+" + way;
        if (count != bytes_.size() || !as_told || !stats.fallbacks.empty()) {
          std::fprintf(stderr, "%zu tensors by %s: %s\n", count, stats.choice.c_str(),
                       stats.why.c_str());
          return 2;
        }
        return 0;
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 3;
      }
    });
  }

  testing_places::Folder folder_;
  std::string path_;
  std::map<std::string, std::string> bytes_;
};

TEST_P(LoadOnPlaces, cold_half_cold_and_warm) {
  drop(path_);
  EXPECT_EQ(load({}, GetParam().way), 0) << "cold";
  drop(path_);
  warm_parts(path_, 2 * kMiB, [](uint64_t i) { return i % 2 == 0; });
  EXPECT_EQ(load({}, GetParam().way), 0) << "half cold";
  warm(path_);
  EXPECT_EQ(load({}, GetParam().way), 0) << "warm";
}

TEST_P(LoadOnPlaces, cold_without_mapping) {
  LoadOptions options;
  options.choice.mapping = MappingRule::never;
  drop(path_);
  EXPECT_EQ(load(options, GetParam().never_cold), 0);
}

INSTANTIATE_TEST_SUITE_P(Everywhere, LoadOnPlaces,
                         testing::Values(PlaceCase{"plain", 0, "mmap", "uring"},
                                         PlaceCase{"plain", 65534, "mmap", "uring"},
                                         PlaceCase{"overlay", 0, "mmap", "uring"},
                                         PlaceCase{"overlay", 65534, "mmap", "uring"},
                                         PlaceCase{"squashfs", 0, "mmap", "pread_buffered"},
                                         PlaceCase{"squashfs", 65534, "mmap", "pread_buffered"},
                                         PlaceCase{"tmpfs", 0, "mmap", "pread_buffered"},
                                         PlaceCase{"tmpfs", 65534, "mmap", "pread_buffered"}),
                         [](const auto& test) {
                           return std::string(test.param.place) +
                                  (test.param.user == 0 ? "_owner" : "_other");
                         });

}  // namespace
}  // namespace inrush
