// Loads whose device reads the page cache's own pages, registered with the driver for that.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "inrush/policy/profile.h"
#include "tests/load/device_load.h"

namespace inrush {
namespace {

using test::DeviceLoad;
using test::kMiB;

class RegisteredLoad : public DeviceLoad {
 protected:
  RegisteredLoad() { driver.set("read_only", 1); }
  [[nodiscard]] static LoadOptions registering() {
    LoadOptions options;
    options.choice.backend = {"MMAP"};
    options.choice.strict = true;
    options.budget = 64 * kMiB;
    return options;
  }
  // Calls of the driver's register memory beyond the ring's own.
  [[nodiscard]] int64_t registrations() const { return driver.count("cuMemHostRegister_v2"); }
};

TEST_F(RegisteredLoad, the_device_reads_the_files_own_pages_and_no_byte_is_copied_by_the_host) {
  write_checkpoint();
  for (const bool cold : {false, true}) {
    if (cold) folder.make_cold();
    const int64_t before = registrations();
    Load load = begin({"cuda:1"}, registering());
    EXPECT_EQ(drain(load), folder.expected.size());
    EXPECT_TRUE(load.choice().register_pages);
    EXPECT_EQ(load.choice().name, "mmap");
    EXPECT_GT(registrations() - before, 4);
    EXPECT_TRUE(load.stats().fallbacks.empty());
  }
}

TEST_F(RegisteredLoad, windows_are_inside_the_pinned_budget_and_are_used_again) {
  std::vector<size_t> sizes(40, 3 * kMiB + 12);
  folder.shard("model.safetensors", "t", sizes);
  driver.set("copy_delay_us", 1000);
  LoadOptions options = registering();
  options.budget = 32 * kMiB;
  Load load = begin({"cuda"}, std::move(options));
  EXPECT_EQ(drain(load), sizes.size());
  EXPECT_GT(load.stats().peak_staging, 0U);
  EXPECT_LE(load.stats().peak_staging, 32 * kMiB);
}

TEST_F(RegisteredLoad, a_budget_too_small_for_windows_copies_into_slots) {
  write_checkpoint();
  LoadOptions options = registering();
  options.budget = 8 * kMiB;
  Load load = begin({"cuda"}, std::move(options));
  EXPECT_EQ(drain(load), folder.expected.size());
  EXPECT_LE(load.stats().peak_staging, 8 * kMiB);
}

TEST_F(RegisteredLoad, tensors_in_host_memory_beside_it_are_read_never_mapped) {
  write_checkpoint();
  LoadOptions options = registering();
  options.selections = {};
  std::vector<std::byte> memory(5 * kMiB);
  Memory given;
  given.data = memory.data();
  given.size = memory.size();
  options.out = {{"b6", given}};
  Load load = begin({"cuda"}, std::move(options));
  EXPECT_EQ(drain(load), folder.expected.size());
  EXPECT_EQ(std::memcmp(memory.data(), folder.expected.at("b6").data(), memory.size()), 0);
}

TEST_F(RegisteredLoad, a_driver_that_cannot_or_will_not_register_pages_is_no_error) {
  write_checkpoint();
  driver.set("read_only", 0);
  Load copied = begin({"cuda"}, registering());
  EXPECT_EQ(drain(copied), folder.expected.size());
  EXPECT_FALSE(copied.choice().register_pages);
  driver.set("read_only", 1);
  // The ring's own memory comes first.
  driver.fail("cuMemHostRegister_v2", 2, 801);
  Load refused = begin({"cuda"}, registering());
  EXPECT_EQ(drain(refused), folder.expected.size());
  EXPECT_TRUE(refused.choice().register_pages);
  ASSERT_EQ(refused.stats().fallbacks.size(), 1U);
  EXPECT_NE(refused.stats().fallbacks[0].find("of a file on cuda:0"), std::string::npos)
      << refused.stats().fallbacks[0];
}

TEST_F(RegisteredLoad, where_it_cannot_be_it_is_not) {
  write_checkpoint();
  const auto registers = [&](const std::vector<std::string>& devices, LoadOptions options) {
    Load load = begin(devices, std::move(options));
    EXPECT_EQ(drain(load), folder.expected.size());
    return load.choice().register_pages;
  };
  EXPECT_FALSE(registers({"hip"}, registering()));
  LoadOptions options = registering();
  options.choice.strict = false;
  options.choice.mapping = MappingRule::never;
  EXPECT_FALSE(registers({"cuda"}, options));
  driver.set("integrated", 1);
  EXPECT_FALSE(registers({"cuda"}, registering()));
}

TEST_F(RegisteredLoad, a_file_that_shrinks_in_mid_load_is_one_error_and_no_crash) {
  std::vector<size_t> sizes(30, 4 * kMiB);
  folder.shard("model.safetensors", "t", sizes);
  driver.set("copy_delay_us", 3000);
  Load load = begin({"cuda"}, registering());
  std::filesystem::resize_file(folder.path() + "/model.safetensors", 20 * kMiB);
  try {
    while (load.next()) {
    }
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data) << error.message();
  }
}

TEST_F(RegisteredLoad, a_failure_of_any_call_leaves_nothing_behind) {
  write_checkpoint();
  const auto run = [this] { return failure({"cuda"}, registering()); };
  EXPECT_GT(fail_each_call(run, 2), 40);
  lose_device(run);
}

TEST_F(RegisteredLoad, a_load_that_is_left_early_gives_everything_back) {
  write_checkpoint();
  driver.set("copy_delay_us", 3000);
  for (int i = 0; i < 5; ++i) {
    Load load = begin({"cuda"}, registering());
    static_cast<void>(load.next());
  }
}

TEST_F(RegisteredLoad, each_way_is_tried_once_and_then_the_faster_one_is_taken) {
  folder.shard("model.safetensors", "t", std::vector<size_t>(20, 4 * kMiB));
  const std::string profile = folder.path() + "/profile.json";
  ::setenv("INRUSH_PROFILE", profile.c_str(), 1);
  const auto way = [&] {
    LoadOptions options;
    options.collect = true;
    Load load = begin({"cuda"}, std::move(options));
    EXPECT_EQ(drain(load), 20U);
    return load.choice();
  };
  if (way().lanes[0].direct) GTEST_SKIP() << "whether it is in the page cache cannot be said here";
  const Choice second = way();
  EXPECT_TRUE(second.register_pages) << second.why;
  EXPECT_NE(second.why.find("tried instead of copying them"), std::string::npos) << second.why;
  EXPECT_EQ(load_profile().rates.size(), 2U);
  for (const double faster : {0.5, 2.0}) {
    Profile known = load_profile();
    double copying = 0;
    for (auto& [key, rate] : known.rates) {
      if (key.find("|pread_buffered|warm") != std::string::npos) copying = rate.bytes_per_second;
    }
    for (auto& [key, rate] : known.rates) {
      if (key.find("|mmap|warm") == std::string::npos) continue;
      rate.bytes_per_second = copying * faster;
    }
    std::ofstream(profile) << to_json(known);
    const Choice chosen = way();
    EXPECT_EQ(chosen.register_pages, faster > 1) << chosen.why;
    EXPECT_NE(chosen.why.find("measured here at"), std::string::npos) << chosen.why;
  }
  ::setenv("INRUSH_PROFILE", "off", 1);
}

}  // namespace
}  // namespace inrush
