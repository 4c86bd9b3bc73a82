#include "inrush/policy/choose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "inrush/base/json.h"
#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr uint64_t kGB = 1'000'000'000;
constexpr uint64_t kWanted = 3 * kGB;

// A cold checkpoint on an ext4 of a machine with 2 CPUs and 20 GB of memory.
Facts cold_ext4() {
  Facts facts;
  facts.machine = {"6.1", 2, 20 * kGB, 0, 0, 8 << 20, 4096, "madvise"};
  facts.filesystem.type = "ext4";
  facts.filesystem.id = "uuid-1";
  facts.filesystem.may_map = facts.filesystem.own_pages = facts.filesystem.direct = true;
  facts.filesystem.direct_memory_align = facts.filesystem.direct_offset_align = 512;
  facts.engines = {{"uring", ""}, {"aio", ""}, {"pread", ""}, {"mmap", ""}};
  facts.wanted_bytes = kWanted;
  facts.blobs = 2;
  facts.targets = 300;
  return facts;
}

void be_tmpfs(Facts& facts) {
  facts.filesystem = {};
  facts.filesystem.type = facts.filesystem.id = "tmpfs";
  facts.filesystem.memory = facts.filesystem.may_map = true;
  facts.warm_bytes = kWanted;
}

void be_fuse(Facts& facts) {
  facts.filesystem = {};
  facts.filesystem.type = "fuse.gcsfuse";
  facts.filesystem.id = "fuse.gcsfuse of bucket";
  facts.filesystem.sequential = facts.filesystem.direct = true;
  facts.unknown_bytes = kWanted;
}

void be_remote(Facts& facts) {
  facts.filesystem = {};
  facts.filesystem.type = "https";
  facts.filesystem.id = "https://host:8443";
  facts.filesystem.engine = "http";
  facts.unknown_bytes = kWanted;
}

std::string text_of(const Choice& choice) {
  std::string text = choice.name;
  for (const LaneChoice& lane : choice.lanes) {
    text += " " + lane.engine + (lane.direct ? ":direct" : "");
    text += std::string(":") + "arc"[static_cast<int>(lane.coverage)];
    if (lane.sequential) text += ":streams";
  }
  if (choice.map_warm) text += " map_warm";
  if (choice.map_cold) text += " map_cold";
  if (choice.drop_cache) text += " drop";
  return text;
}

struct Row {
  const char* name;
  std::function<void(Facts&)> facts;
  std::function<void(ChoiceRequest&)> request;
  const char* choice;  // lanes as engine[:direct]:coverage, coverage a(ll), r(esident), c(old)
  const char* why;     // a part of it
};

void nothing(ChoiceRequest& /*request*/) {}
void never_map(ChoiceRequest& request) { request.mapping = MappingRule::never; }
void drop(ChoiceRequest& request) { request.page_cache = PageCache::drop; }
void keep(ChoiceRequest& request) { request.page_cache = PageCache::keep; }

void to_a_device(Facts& facts) {
  facts.private_host_memory = false;
  facts.engines.push_back({"cufile", ""});
  facts.backends.push_back({"CUFILE", ""});
}

const Row kRows[] = {
    // Ours to map.
    {"cold", [](Facts&) {}, nothing, "mmap mmap:a map_warm map_cold",
     "3.0 GB cold on ext4, 20.0 GB of memory free: populating"},
    {"half", [](Facts& f) { f.warm_bytes = kWanted / 2; }, nothing, "mmap mmap:a map_warm map_cold",
     "1.5 GB warm and 1.5 GB cold on ext4"},
    {"warm", [](Facts& f) { f.warm_bytes = kWanted; }, nothing, "mmap pread:a map_warm",
     "mapping it costs no copy"},
    {"tmpfs", be_tmpfs, nothing, "mmap pread:a map_warm", "3.0 GB warm on tmpfs"},
    {"unknown", [](Facts& f) { f.unknown_bytes = kWanted; }, nothing,
     "mmap mmap:a map_warm map_cold", "of unknown residency"},
    {"more_than_memory", [](Facts& f) { f.machine.memory_available = kWanted; }, nothing,
     "mmap pread:a map_warm map_cold", "pages come when they are touched"},
    {"more_than_memory_but_warm",
     [](Facts& f) {
       f.machine.memory_available = kGB;
       f.warm_bytes = kWanted - kGB / 2;
     },
     nothing, "mmap mmap:a map_warm map_cold", "populating"},
    {"speckled", [](Facts& f) { f.speckled_bytes = kWanted; }, nothing,
     "uring uring:direct:c map_warm", "fewer requests than filling the holes"},
    {"speckled_without_direct_io",
     [](Facts& f) {
       f.speckled_bytes = kWanted;
       f.filesystem.direct = false;
     },
     nothing, "mmap mmap:a map_warm map_cold", "populating"},
    {"alternating", [](Facts& f) { f.mixed_bytes = kWanted; }, nothing,
     "mmap mmap:a map_warm map_cold", "partly warm"},
    {"drop", [](Facts&) {}, drop, "uring uring:direct:c map_warm",
     "leave nothing in the page cache"},
    {"drop_half", [](Facts& f) { f.warm_bytes = kWanted / 2; }, drop,
     "mmap+uring pread:r uring:direct:c map_warm", "leave nothing"},
    {"drop_without_direct_io", [](Facts& f) { f.filesystem.direct = false; }, drop,
     "pread_buffered pread:a drop", "dropped again"},
    {"others_load_it_too", [](Facts& f) { f.others_loading = 3; }, nothing,
     "mmap mmap:a map_warm map_cold", "populating"},
    {"mmap_left_out", [](Facts& f) { f.engines.pop_back(); }, nothing, "uring uring:direct:c",
     "bypass"},
    // Not on this machine.
    {"remote", be_remote, nothing, "http http:a",
     "3.0 GB from https://host:8443, a remote place: requests of 8 MB, 8 in flight"},
    {"remote_told_otherwise", be_remote,
     [](ChoiceRequest& request) {
       request.backend = {"URING"};
       request.strict = true;
     },
     "http http:a", "backend= is about local files"},
    // To be copied.
    {"never_cold", [](Facts&) {}, never_map, "uring uring:direct:c", "bypass"},
    {"never_warm", [](Facts& f) { f.warm_bytes = kWanted; }, never_map, "pread_buffered pread:a",
     "a copy out of the page cache"},
    {"never_tmpfs", be_tmpfs, never_map, "pread_buffered pread:a", "on tmpfs"},
    {"never_half", [](Facts& f) { f.warm_bytes = kWanted / 2; }, never_map,
     "pread_buffered+uring pread:r uring:direct:c", "bypass"},
    {"callers_memory", [](Facts& f) { f.private_host_memory = false; }, nothing,
     "uring uring:direct:c", "bypass"},
    {"callers_memory_tmpfs",
     [](Facts& f) {
       be_tmpfs(f);
       f.private_host_memory = false;
     },
     nothing, "pread_buffered pread:a", "copy"},
    {"not_on_the_allow_list",
     [](Facts& f) {
       f.filesystem.type = "zfs";
       f.filesystem.may_map = false;
     },
     nothing, "uring uring:direct:c", "zfs"},
    {"never_no_uring", [](Facts& f) { f.engines[0].reason = "EPERM"; }, never_map,
     "aio aio:direct:c", "bypass"},
    {"never_neither", [](Facts& f) { f.engines[0].reason = f.engines[1].reason = "EPERM"; },
     never_map, "pread pread:direct:c", "bypass"},
    {"never_no_direct_io", [](Facts& f) { f.filesystem.direct = false; }, never_map,
     "pread_buffered pread:a", "there is no direct I/O here"},
    {"never_alternating", [](Facts& f) { f.mixed_bytes = kWanted; }, never_map,
     "pread_buffered pread:a", "fetch only what is missing"},
    {"never_speckled", [](Facts& f) { f.speckled_bytes = kWanted; }, never_map,
     "uring uring:direct:c", "bypass"},
    {"never_unknown", [](Facts& f) { f.unknown_bytes = kWanted; }, never_map,
     "pread_buffered pread:a", "right if they are warm"},
    {"never_keep", [](Facts&) {}, [](ChoiceRequest& r) { never_map(r), keep(r); },
     "pread_buffered pread:a", "page_cache=keep"},
    {"never_drop_others", [](Facts& f) { f.others_loading = 1; },
     [](ChoiceRequest& r) { never_map(r), drop(r); }, "uring uring:direct:c", "bypass"},
    {"never_others", [](Facts& f) { f.others_loading = 3; }, never_map, "pread_buffered pread:a",
     "3 other process(es)"},
    {"never_recently", [](Facts& f) { f.loaded_recently = true; }, never_map,
     "pread_buffered pread:a", "within the hour"},
    {"never_recently_but_for_once", [](Facts& f) { f.loaded_recently = true; },
     [](ChoiceRequest& r) { never_map(r), r.once = true; }, "uring uring:direct:c", "bypass"},
    {"never_recently_but_little_memory",
     [](Facts& f) {
       f.loaded_recently = true;
       f.machine.memory_available = 5 * kGB;
     },
     never_map, "uring uring:direct:c", "bypass"},
    // Far places.
    {"fuse", be_fuse, nothing, "pread_buffered pread:a:streams", "long streams: 8"},
    {"fuse_callers_memory",
     [](Facts& f) {
       be_fuse(f);
       f.private_host_memory = false;
     },
     nothing, "pread_buffered pread:a:streams", "long streams"},
    {"fuse_warm",
     [](Facts& f) {
       be_fuse(f);
       f.unknown_bytes = 0;
       f.warm_bytes = kWanted;
     },
     nothing, "mmap pread:a map_warm", "mapping it costs no copy"},
    {"fuse_partly_warm",
     [](Facts& f) {
       be_fuse(f);
       f.unknown_bytes = 0;
       f.warm_bytes = kWanted / 2;
     },
     nothing, "pread_buffered pread:a:streams", "long streams"},
    {"fuse_drop", be_fuse, drop, "pread_buffered pread:a:streams drop", "long streams"},
    // As told.
    {"told_uring", [](Facts&) {}, [](ChoiceRequest& r) { r.backend = {"uring"}; },
     "uring uring:direct:a", "backend=URING was asked for"},
    {"told_buffered", [](Facts&) {}, [](ChoiceRequest& r) { r.backend = {"BUFFERED"}; },
     "uring_buffered uring:a", "URING_BUFFERED"},
    {"told_mmap", [](Facts&) {}, [](ChoiceRequest& r) { r.backend = {"MMAP"}; },
     "mmap mmap:a map_warm map_cold", "MMAP"},
    {"told_mmap_into_callers_memory", [](Facts& f) { f.private_host_memory = false; },
     [](ChoiceRequest& r) { r.backend = {"MMAP"}; }, "mmap mmap:a", "MMAP"},
    {"told_next_best", be_tmpfs,
     [](ChoiceRequest& r) {
       r.backend = {"URING", "PREAD_BUFFERED"};
     },
     "pread_buffered pread:a", "PREAD_BUFFERED"},
    {"told_buffered_drop", [](Facts&) {},
     [](ChoiceRequest& r) {
       drop(r);
       r.backend = {"PREAD_BUFFERED"};
     },
     "pread_buffered pread:a drop", "PREAD_BUFFERED"},
    {"told_what_cannot_be", [](Facts&) {}, [](ChoiceRequest& r) { r.backend = {"CUFILE"}; },
     "mmap mmap:a map_warm map_cold", "not as asked: CUFILE: it reads into device memory"},
    {"told_gpudirect_to_a_device", to_a_device, [](ChoiceRequest& r) { r.backend = {"CUFILE"}; },
     "cufile cufile:direct:c", "backend=CUFILE was asked for"},
    {"told_gpudirect_off_memory",
     [](Facts& f) {
       to_a_device(f);
       be_tmpfs(f);
     },
     [](ChoiceRequest& r) { r.backend = {"CUFILE"}; }, "pread_buffered pread:a",
     "not as asked: CUFILE: tmpfs is memory"},
    {"told_gpudirect_and_it_is_refused",
     [](Facts& f) {
       to_a_device(f);
       f.backends[0].reason = "its kernel driver is not loaded";
     },
     [](ChoiceRequest& r) { r.backend = {"CUFILE"}; }, "uring uring:direct:c",
     "not as asked: CUFILE: its kernel driver is not loaded"},
    {"nothing_wanted", [](Facts& f) { f.wanted_bytes = 0; }, nothing, "pread_buffered",
     "nothing to read"},
};

class ChooseTest : public testing::TestWithParam<Row> {};

TEST_P(ChooseTest, as_the_table_says) {
  Facts facts = cold_ext4();
  GetParam().facts(facts);
  ChoiceRequest request;
  GetParam().request(request);
  const Choice choice = choose(facts, {}, request);
  EXPECT_EQ(text_of(choice), GetParam().choice);
  EXPECT_NE(choice.why.find(GetParam().why), std::string::npos) << choice.why;
  const JsonText json(to_json(choice));
  JsonReader reader(json);
  reader.enter_object();
  for (std::string_view key; reader.next_field(key);) reader.skip();
  EXPECT_NO_THROW(reader.finish());
}

INSTANTIATE_TEST_SUITE_P(Cases, ChooseTest, testing::ValuesIn(kRows),
                         [](const auto& test) { return std::string(test.param.name); });

Profile seen(const std::string& way, double rate, uint32_t depth = 0, uint32_t streams = 0) {
  Profile profile;
  profile.learn("uuid-1", way, {rate, depth, streams, 1, 1});
  profile.learn("fuse.gcsfuse of bucket", way, {rate, depth, streams, 1, 1});
  return profile;
}

Profile seen(const std::string& one, double rate_one, const std::string& two, double rate_two) {
  Profile profile = seen(one, rate_one);
  profile.merge(seen(two, rate_two));
  return profile;
}

TEST(Choose, what_was_measured_overturns_what_is_believed_if_it_is_clearly_better) {
  const Facts facts = cold_ext4();
  EXPECT_EQ(choose(facts, seen("mmap", 2e9, "uring", 2.5e9), {}).name, "uring");
  EXPECT_EQ(choose(facts, seen("mmap", 2e9, "uring", 2.1e9), {}).name, "mmap");
  EXPECT_EQ(choose(facts, seen("uring", 9e9), {}).name, "mmap") << "only one way was seen";
  ChoiceRequest never;
  never_map(never);
  EXPECT_EQ(choose(facts, seen("uring", 2e9, "pread_buffered", 2.5e9), never).name,
            "pread_buffered");
}

TEST(Choose, a_restart_is_left_warm_though_direct_reads_are_faster) {
  Facts facts = cold_ext4();
  facts.loaded_recently = true;
  EXPECT_EQ(choose(facts, seen("mmap", 2e9, "uring", 2.5e9), {}).name, "mmap");
}

TEST(Choose, filling_holes_asks_the_disk_for_less_than_reading_all_of_it) {
  Facts facts = cold_ext4();
  facts.mixed_bytes = kWanted;
  EXPECT_EQ(choose(facts, seen("mmap", 2e9, "uring", 3e9), {}).name, "mmap");
  EXPECT_EQ(choose(facts, seen("mmap", 2e9, "uring", 5e9), {}).name, "uring");
  facts.mixed_bytes = kWanted / 10;
  EXPECT_EQ(choose(facts, seen("mmap", 2e9, "uring", 3e9), {}).name, "uring");
}

TEST(Choose, holes_are_filled_in_order_where_processors_are_few) {
  Facts facts = cold_ext4();
  EXPECT_EQ(choose(facts, {}, {}).lanes.at(0).depth, 8U);
  facts.mixed_bytes = kWanted;
  EXPECT_EQ(choose(facts, {}, {}).lanes.at(0).depth, 1U);
  facts.machine.cpus = 16;
  EXPECT_EQ(choose(facts, {}, {}).lanes.at(0).depth, 8U);
}

TEST(Choose, a_slow_disk_is_read_through_the_page_cache_when_memory_is_ample) {
  Facts facts = cold_ext4();
  ChoiceRequest never;
  never_map(never);
  EXPECT_EQ(choose(facts, seen("uring", 0.2e9), never).name, "pread_buffered");
  never.once = true;
  EXPECT_EQ(choose(facts, seen("uring", 0.2e9), never).name, "uring") << "nobody comes back";
  never.once = false;
  facts.machine.memory_available = 5 * kGB;
  EXPECT_EQ(choose(facts, seen("uring", 0.2e9), never).name, "uring");
}

TEST(Choose, begins_with_the_depth_and_streams_that_were_settled_on) {
  ChoiceRequest never;
  never_map(never);
  EXPECT_EQ(choose(cold_ext4(), seen("uring", 2e9, 12), never).lanes.back().depth, 12U);
  const LaneChoice most = choose(cold_ext4(), seen("uring", 2e9, 1000), never).lanes.back();
  EXPECT_EQ(most.depth, most.most_depth);
  Facts far = cold_ext4();
  be_fuse(far);
  EXPECT_EQ(choose(far, seen("pread_buffered", 1e9, 0, 20), {}).lanes[0].count, 20U);
  EXPECT_EQ(choose(far, seen("pread_buffered", 1e9, 0, 99), {}).lanes[0].count, 32U);
}

TEST(Choose, what_is_in_flight_keeps_to_half_the_budget) {
  for (const uint64_t budget : {4ULL << 20, 16ULL << 20, 64ULL << 20, 1ULL << 30}) {
    for (const auto change : {+[](Facts&) {}, +[](Facts& f) { be_fuse(f); },
                              +[](Facts& f) { f.warm_bytes = f.wanted_bytes; }}) {
      Facts facts = cold_ext4();
      facts.machine.cpus = 16;
      change(facts);
      ChoiceRequest request;
      never_map(request);
      request.budget = budget;
      for (const LaneChoice& lane : choose(facts, {}, request).lanes) {
        const uint64_t lanes = std::max(lane.count, lane.most);
        EXPECT_LE(lane.most_depth * lane.block_size * lanes, budget / 2) << budget;
        EXPECT_GE(lane.depth, 1U);
        EXPECT_LE(lane.depth, lane.most_depth);
        EXPECT_GE(lane.count, 1U);
      }
    }
  }
}

TEST(Choose, few_streams_for_few_bytes) {
  Facts facts = cold_ext4();
  be_fuse(facts);
  facts.wanted_bytes = facts.unknown_bytes = 10'000'000;
  const LaneChoice lane = choose(facts, {}, {}).lanes[0];
  EXPECT_EQ(lane.count, 5U);
  EXPECT_EQ(lane.most, 5U);
  EXPECT_EQ(lane.block_size, 2ULL << 20) << "each reads its share at once";
}

std::string error_of(const Facts& facts, const ChoiceRequest& request) {
  try {
    choose(facts, {}, request);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    return error.message();
  }
  return "no error";
}

TEST(Choose, one_error_lists_why_each_candidate_was_rejected) {
  Facts facts = cold_ext4();
  facts.filesystem.direct = false;
  facts.engines[1].reason = "the kernel has none";
  ChoiceRequest request;
  request.strict = true;
  request.backend = {"CUFILE", "AIO", "PREAD"};
  const std::string error = error_of(facts, request);
  EXPECT_NE(error.find("CUFILE: it reads into device memory"), std::string::npos) << error;
  EXPECT_NE(error.find("AIO: the kernel has none"), std::string::npos) << error;
  EXPECT_NE(error.find("PREAD: ext4 has no direct I/O here"), std::string::npos) << error;
}

TEST(Choose, an_unknown_backend_is_an_error_that_lists_those_there_are) {
  ChoiceRequest request;
  request.backend = {"FLOPPY"};
  const std::string error = error_of(cold_ext4(), request);
  EXPECT_NE(error.find("FLOPPY"), std::string::npos);
  for (const char* name : {"URING", "AIO", "URING_BUFFERED", "AIO_BUFFERED", "MMAP", "CUFILE",
                           "PREAD", "PREAD_BUFFERED", "BUFFERED"}) {
    EXPECT_NE(error.find(name), std::string::npos) << error;
  }
}

TEST(Choose, says_what_it_rejected) {
  Facts facts = cold_ext4();
  facts.engines[0].reason = "EPERM: a container forbids it";
  facts.private_host_memory = false;
  const Choice choice = choose(facts, {}, {});
  const auto reason = [&](const std::string& name) {
    const auto found = std::find_if(choice.rejected.begin(), choice.rejected.end(),
                                    [&](const EngineFact& fact) { return fact.name == name; });
    return found == choice.rejected.end() ? std::string() : found->reason;
  };
  EXPECT_EQ(reason("URING"), "EPERM: a container forbids it");
  EXPECT_NE(reason("MMAP").find("caller's memory"), std::string::npos);
}

}  // namespace
}  // namespace inrush
