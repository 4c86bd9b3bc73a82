// Loads that storage writes into device memory by itself.
#include <fstream>

#include "inrush/policy/profile.h"
#include "tests/load/device_load.h"

namespace inrush {
namespace {

using test::Bytes;
using test::DeviceLoad;
using test::kMiB;

class DirectLoad : public DeviceLoad {
 protected:
  void rejected(const std::vector<std::string>& devices, const char* because) const {
    const std::string message = failure(devices, by({"CUFILE"}));
    EXPECT_NE(message.find(because), std::string::npos) << message;
    EXPECT_EQ(driver.report(), "");
    Load load = begin(devices, by({"CUFILE"}, false));  // and another is chosen
    EXPECT_EQ(drain(load), folder.expected.size());
    EXPECT_NE(load.choice().why.find(because), std::string::npos) << load.choice().why;
  }
  void every_other_element_of(uint64_t size) {
    folder.shard("model.safetensors", "w", {size});
    LoadOptions options = by({"CUFILE"});
    Selection half;
    half.wants.push_back({0, {{0, size, 2}}});
    options.selections = {half};
    Load load = begin({"cuda"}, std::move(options));
    const auto tensor = load.next();
    ASSERT_TRUE(tensor);
    const Bytes got = bytes_of(tensor->memory);
    const auto& all = folder.expected.at("w0");
    ASSERT_EQ(got.size(), size / 2);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], all[2 * i]) << i;
  }
  [[nodiscard]] static LoadOptions by(const std::vector<std::string>& backends,
                                      bool strict = true) {
    LoadOptions options;
    options.choice.backend = backends;
    options.choice.strict = strict;
    return options;
  }
};

TEST_F(DirectLoad, storage_writes_to_the_device_and_no_byte_passes_through_the_host) {
  write_checkpoint();
  Load load = begin({"cuda:1"}, by({"CUFILE"}));
  EXPECT_EQ(drain(load), folder.expected.size());
  EXPECT_EQ(load.choice().name, "cufile");
  EXPECT_EQ(driver.count("cuMemcpyHtoDAsync_v2"), 0);
  EXPECT_GT(driver.count("cuMemcpyDtoDAsync_v2"), 0);
  EXPECT_EQ(driver.touched(), 2U);
}

TEST_F(DirectLoad, slots_on_the_device_are_inside_their_budget_and_are_used_again) {
  write_checkpoint();
  driver.set("copy_delay_us", 2000);
  LoadOptions options = by({"CUFILE"});
  options.device_budget = 4 * kMiB;
  Load load = begin({"cuda"}, std::move(options));
  EXPECT_EQ(drain(load), folder.expected.size());
  EXPECT_GT(load.stats().peak_device_staging, kMiB);
  EXPECT_LE(load.stats().peak_device_staging, 4 * kMiB);
  options = by({"CUFILE"});
  options.device_budget = kMiB;
  const std::string message = failure({"cuda"}, std::move(options));
  EXPECT_EQ(message.find("budget of 1048576 bytes of device memory is below the least"), 0U)
      << message;
}

TEST_F(DirectLoad, rows_are_copied_one_by_one_where_the_driver_refuses_their_pitch) {
  every_other_element_of(20'000);
  EXPECT_GT(driver.count("cuMemcpy2DAsync_v2"), 0);
  EXPECT_GT(driver.count("cuMemcpyDtoDAsync_v2"), 0);
}

TEST_F(DirectLoad, slices_are_two_dimensional_copies_on_the_device) {
  driver.set("any_pitch", 1);
  every_other_element_of(1'500'000);
}

TEST_F(DirectLoad, cufile_leaves_no_context_without_its_own) {
  write_checkpoint();
  for (int i = 0; i < 2; ++i) {
    Load load = begin({"cuda:1"}, by({"CUFILE"}));
    EXPECT_EQ(drain(load), folder.expected.size());
  }
  EXPECT_EQ(driver.report(), "");
}

TEST_F(DirectLoad, why_it_is_rejected) {
  write_checkpoint();
  rejected({"hip"}, "the tensors do not all go to one CUDA device");
  driver.set("integrated", 1);
  rejected({"cuda"}, "the tensors do not all go to one CUDA device");
  driver.set("integrated", 0);
  driver.set("nvidia_fs", 0);
  rejected({"cuda"}, "its kernel driver, nvidia-fs, is not loaded (5001)");
  ::setenv("INRUSH_CUFILE_LIBRARY", "/nowhere/libcufile.so.0", 1);
  rejected({"cuda"}, "/nowhere/libcufile.so.0");
  ::setenv("INRUSH_CUFILE_LIBRARY", "libm.so.6", 1);
  rejected({"cuda"}, "has no cuFileDriverOpen");
  LoadOptions on_host = by({"CUFILE"});
  EXPECT_THROW(Load(Checkpoint::open(folder.path()), on_host), Error);
}

TEST_F(DirectLoad, a_library_that_would_read_through_the_host_in_silence_is_rejected) {
  write_checkpoint();
  driver.set("parameters", 0);
  rejected({"cuda"}, "cuFile may read through host memory here");
}

TEST_F(DirectLoad, a_library_that_is_forced_through_the_host_is_told_otherwise_or_rejected) {
  write_checkpoint();
  driver.set("forced", 1);
  {
    Load load = begin({"cuda"}, by({"CUFILE"}));
    EXPECT_EQ(drain(load), folder.expected.size());
    EXPECT_EQ(load.choice().name, "cufile");
  }
  driver.reset();
  driver.set("forced", 1);
  driver.open_cufile();  // somebody else in the process
  rejected({"cuda"}, "cuFile is forced to read through host memory");
}

TEST_F(DirectLoad, through_host_memory_only_where_that_was_asked_for) {
  write_checkpoint();
  driver.set("nvidia_fs", 0);
  Load load = begin({"cuda"}, by({"CUFILE", "CUFILE_COMPATIBLE"}));
  EXPECT_EQ(drain(load), folder.expected.size());
  EXPECT_EQ(load.choice().name, "cufile_compatible");
}

TEST_F(DirectLoad, a_file_that_is_refused_takes_the_way_through_the_host_and_the_others_do_not) {
  write_checkpoint();
  driver.fail("cuFileHandleRegister", 1, 5008);
  Load load = begin({"cuda"}, by({"CUFILE"}, false));
  EXPECT_EQ(drain(load), folder.expected.size());
  ASSERT_EQ(load.stats().fallbacks.size(), 1U);
  EXPECT_NE(load.stats().fallbacks[0].find("does not support this file's place (5008)"),
            std::string::npos);
  EXPECT_GT(driver.count("cuFileRead"), 0);
  EXPECT_GT(driver.count("cuMemcpyHtoDAsync_v2"), 0);
}

TEST_F(DirectLoad, a_read_that_fails_in_mid_load_gives_its_file_to_another_way) {
  write_checkpoint();
  for (const int result : {5, 5010}) {
    driver.fail("cuFileRead", 1, result);
    Load load = begin({"cuda"}, by({"CUFILE"}, false));
    EXPECT_EQ(drain(load), folder.expected.size());
    EXPECT_EQ(load.stats().fallbacks.size(), 1U);
  }
  driver.fail("cuFileRead", 1, 5010);
  const std::string message = failure({"cuda"}, by({"CUFILE"}));
  EXPECT_NE(message.find("via cufile"), std::string::npos) << message;
  EXPECT_NE(message.find("its kernel driver failed (5010)"), std::string::npos) << message;
}

TEST_F(DirectLoad, a_failure_of_any_call_leaves_nothing_behind) {
  write_checkpoint();
  const auto run = [this] { return failure({"cuda"}, by({"CUFILE"})); };
  EXPECT_GT(fail_each_call(run, 5010), 40);
  lose_device([this] { return failure({"cuda"}, by({"CUFILE"}, false)); });
  EXPECT_EQ(failure({"cuda"}, by({"CUFILE"})), "");
}

TEST_F(DirectLoad, is_chosen_by_itself_only_where_it_was_measured_to_be_clearly_faster) {
  folder.shard("model.safetensors", "t", std::vector<size_t>(20, 4 * kMiB));
  const std::string profile = folder.path() + "/profile.json";
  ::setenv("INRUSH_PROFILE", profile.c_str(), 1);
  const auto way = [&](const std::vector<std::string>& backends, bool cold = true) {
    LoadOptions options = by(backends);
    options.collect = true;
    options.choice.page_cache = cold ? PageCache::drop : PageCache::automatic;
    if (cold) folder.make_cold();
    Load load = begin({"cuda"}, std::move(options));
    EXPECT_EQ(drain(load), 20U);
    return load.choice();
  };
  const auto opened = [this] { return driver.count("cuFileDriverOpen"); };
  EXPECT_EQ(way({"CUFILE"}).name, "cufile");
  const int64_t before = opened();
  EXPECT_GT(before, 0);
  const Choice usual = way({});
  if (!usual.lanes[0].direct || load_profile().rates.size() < 3) {
    GTEST_SKIP() << "whether it is out of the page cache cannot be said here";
  }
  EXPECT_FALSE(usual.to_device);
  EXPECT_EQ(opened(), before) << "nobody asked for it, and its driver was started";
  const auto suppose = [&](double faster) {
    Profile known = load_profile();
    for (auto& [key, rate] : known.rates) {
      rate.bytes_per_second = key.find("|cufile|cold") == std::string::npos ? 9e9 : 9e9 * faster;
    }
    std::ofstream(profile) << to_json(known);
  };
  for (const double faster : {0.9, 1.05, 2.0}) {
    suppose(faster);
    const Choice chosen = way({});
    EXPECT_EQ(chosen.to_device, faster > 1.1) << chosen.why;
    EXPECT_EQ(opened() > before, faster > 1.1);
    if (!chosen.to_device) continue;
    EXPECT_NE(chosen.why.find("measured here at 18.0 GB a second with its driver's start"),
              std::string::npos)
        << chosen.why;
  }
  suppose(2.0);
  folder.make_warm();
  const int64_t then = opened();
  EXPECT_FALSE(way({}, false).to_device);
  EXPECT_EQ(opened(), then) << "all of it is warm, and its driver was started";
  ::setenv("INRUSH_PROFILE", "off", 1);
}

}  // namespace
}  // namespace inrush
