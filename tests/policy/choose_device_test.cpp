// How warm bytes get to a device: copied into pinned slots, or read by it out of registered pages.
#include <gtest/gtest.h>

#include "inrush/core/error.h"
#include "inrush/policy/choose.h"

namespace inrush {
namespace {

constexpr uint64_t kAsked = 3'000'000'000;

Facts warm_for_cuda() {
  Facts facts;
  facts.machine = {"6.1", 8, 20'000'000'000, 0, 0, 8 << 20, 4096, "madvise"};
  facts.filesystem.type = "ext4";
  facts.filesystem.id = "uuid-1";
  facts.filesystem.may_map = facts.filesystem.own_pages = facts.filesystem.direct = true;
  facts.engines = {{"uring", ""}, {"aio", ""}, {"pread", ""}, {"mmap", ""}};
  facts.wanted_bytes = facts.warm_bytes = kAsked;
  facts.private_host_memory = false;
  facts.target = {"cuda:0", "Some GPU 0000:3b:00.0", ""};
  return facts;
}

Profile measured(double copying, double registering) {
  const std::string path = device_path(warm_for_cuda());
  Profile profile;
  if (copying > 0) profile.learn(path, "pread_buffered", {copying, 9, 1, 1, 1}, Profile::kWarm);
  if (registering > 0) profile.learn(path, "mmap", {registering, 4, 4, 1, 1}, Profile::kWarm);
  return profile;
}

TEST(ChooseForDevice, each_way_is_tried_and_the_clearly_faster_one_kept) {
  struct Case {
    double copying, registering;
    bool registers;
    const char* why;
  };
  for (const Case& one : {Case{0, 0, false, "a copy out of the page cache"},
                          Case{0, 9e9, false, "a copy out of the page cache"},
                          Case{5e9, 0, true, "tried instead of copying them, which gave 5.0 GB"},
                          Case{5e9, 9e9, true, "measured here at 9.0 GB a second, against 5.0 GB"},
                          Case{5e9, 5.2e9, false, "measured here at 5.0 GB a second"},
                          Case{9e9, 5e9, false, "against 5.0 GB where the device reads its"}}) {
    const Choice choice = choose(warm_for_cuda(), measured(one.copying, one.registering), {});
    EXPECT_EQ(choice.register_pages, one.registers) << choice.why;
    EXPECT_EQ(choice.name, one.registers ? "mmap" : "pread_buffered");
    ASSERT_EQ(choice.lanes.size(), 1U);
    EXPECT_EQ(choice.lanes[0].engine, one.registers ? "mmap" : "pread");
    EXPECT_NE(choice.why.find(one.why), std::string::npos) << choice.why;
  }
}

TEST(ChooseForDevice, rates_of_cold_loads_are_not_those_of_warm_ones) {
  Profile profile;
  profile.learn(device_path(warm_for_cuda()), "pread_buffered", {5e9, 9, 1, 1, 1});
  EXPECT_FALSE(choose(warm_for_cuda(), profile, {}).register_pages);
}

TEST(ChooseForDevice, why_pages_are_not_registered) {
  const Profile profile = measured(5e9, 9e9);
  const auto reason = [&](const Facts& facts, const ChoiceRequest& request) {
    const Choice choice = choose(facts, profile, request);
    EXPECT_FALSE(choice.register_pages) << choice.why;
    for (const EngineFact& one : choice.rejected) {
      if (one.name == "MMAP") return one.reason;
    }
    return std::string();
  };
  Facts facts = warm_for_cuda();
  facts.target.register_refusal = "the driver is too old";
  EXPECT_EQ(reason(facts, {}), "the driver is too old");
  facts = warm_for_cuda();
  facts.filesystem.own_pages = false;
  facts.filesystem.type = "overlay";
  EXPECT_EQ(reason(facts, {}), "pages of overlay are not registered with a device");
  ChoiceRequest request;
  request.mapping = MappingRule::never;
  EXPECT_EQ(reason(warm_for_cuda(), request), "mapping=never was asked for");
  facts = warm_for_cuda();
  facts.warm_bytes = 0;
  EXPECT_FALSE(choose(facts, profile, {}).register_pages);
}

TEST(ChooseForDevice, it_can_be_asked_for_by_name_for_cold_bytes_too) {
  Facts facts = warm_for_cuda();
  facts.warm_bytes = 0;
  ChoiceRequest request;
  request.backend = {"mmap"};
  EXPECT_TRUE(choose(facts, {}, request).register_pages);
  facts.target = {};
  EXPECT_FALSE(choose(facts, {}, request).register_pages);
  request.backend = {"pread_buffered"};
  EXPECT_FALSE(choose(warm_for_cuda(), measured(1e9, 9e9), request).register_pages);
}

TEST(ChooseForDevice, gpudirect_only_where_it_was_measured_to_be_clearly_faster) {
  Facts facts = warm_for_cuda();
  facts.warm_bytes = 0;
  facts.engines.push_back({"cufile", ""});
  facts.backends.push_back({"CUFILE", ""});
  const auto chosen = [&](double gpudirect, double others) {
    Profile profile;
    if (gpudirect > 0) profile.learn(device_path(facts), "cufile", {gpudirect, 8, 1, 1, 1});
    if (others > 0) profile.learn(device_path(facts), "aio", {others, 8, 1, 1, 1});
    ChoiceRequest request;
    request.device_budget = 64 << 20;
    const Choice choice = choose(facts, profile, request);
    EXPECT_EQ(choice.to_device, choice.name == "cufile");
    EXPECT_EQ(choice.to_device,
              would_take_gpudirect(facts, profile, request) && !facts.backends.empty());
    return choice.to_device;
  };
  EXPECT_FALSE(chosen(0, 0));
  EXPECT_FALSE(chosen(9e9, 0)) << "there is nothing to compare it with";
  EXPECT_FALSE(chosen(0, 5e9));
  EXPECT_FALSE(chosen(5.2e9, 5e9));
  EXPECT_TRUE(chosen(9e9, 5e9));
  facts.target = {};
  EXPECT_FALSE(chosen(9e9, 5e9));
  facts.target = warm_for_cuda().target;
  facts.backends.clear();
  EXPECT_FALSE(chosen(9e9, 5e9)) << "whoever was asked said nothing";
}

TEST(ChooseForDevice, gpudirect_is_not_asked_about_where_it_would_not_be_taken) {
  Facts facts = warm_for_cuda();
  facts.engines.push_back({"cufile", ""});
  Profile profile;
  profile.learn(device_path(facts), "cufile", {9e9, 8, 1, 1, 1});
  profile.learn(device_path(facts), "aio", {5e9, 8, 1, 1, 1});
  const auto asked = [&](const ChoiceRequest& request = {}) {
    return would_take_gpudirect(facts, profile, request);
  };
  EXPECT_FALSE(asked()) << "all of it is warm";
  facts.warm_bytes = 0;
  EXPECT_TRUE(asked());
  ChoiceRequest request;
  request.page_cache = PageCache::keep;
  EXPECT_FALSE(asked(request));
  request = {};
  request.backend = {"uring"};
  EXPECT_FALSE(asked(request));
  facts.others_loading = 1;
  EXPECT_FALSE(asked());
}

}  // namespace
}  // namespace inrush
