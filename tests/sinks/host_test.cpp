#include "inrush/sinks/host.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "inrush/base/align.h"
#include "inrush/core/select.h"

namespace inrush {
namespace {

using Bytes = std::vector<std::byte>;

// One blob of U8 tensors of these sizes, one after the other from `start` on.
struct Model {
  Index index;
  Bytes content;

  explicit Model(const std::vector<uint64_t>& sizes, uint64_t start = 64) {
    std::mt19937_64 random(sizes.size());
    uint64_t offset = start;
    for (size_t i = 0; i < sizes.size(); ++i) {
      TensorInfo tensor;
      tensor.name = "t" + std::to_string(100 + i);
      tensor.shape = {sizes[i]};
      tensor.offset = offset;
      tensor.size = sizes[i];
      index.tensors.push_back(tensor);
      offset += sizes[i];
    }
    content.resize(offset);
    for (auto& byte : content) byte = static_cast<std::byte>(random());
    Blob blob;
    blob.name = "blob";
    blob.size = offset;
    index.blobs.push_back(blob);
    index.metadata.emplace_back();
    index.finish();
  }

  [[nodiscard]] Plan plan(int consumers = 1) const {
    const Selection all{select(index, {})};
    return make_plan(index, std::vector<Selection>(static_cast<size_t>(consumers), all));
  }

  // What an engine would do: the aligned bytes, as far as the blob goes.
  void read(const Grant& grant) const {
    const uint64_t end = std::min<uint64_t>(grant.offset + grant.size, content.size());
    std::memcpy(grant.target, content.data() + grant.offset, end - grant.offset);
  }

  [[nodiscard]] bool holds(const Memory& memory, uint32_t tensor) const {
    return std::memcmp(memory.data, content.data() + index.tensors[tensor].offset, memory.size) ==
           0;
  }
};

EngineTraits traits_of(uint32_t alignment) {
  EngineTraits traits;
  traits.memory_align = traits.offset_align = alignment;
  return traits;
}

std::vector<Placement> all(const Plan& plan, Placement placement) {
  return std::vector<Placement>(plan.ranges.size(), placement);
}

SinkOptions budget(uint64_t bytes, bool collect = false) {
  SinkOptions options;
  options.budget = bytes;
  options.collect = collect;
  return options;
}

TEST(HostSink, reads_in_place_where_the_offsets_are_congruent) {
  const Model model({5 * kMiB, 100, 3 * kMiB});
  const Plan plan = model.plan();
  HostSink sink(model.index, plan, all(plan, Placement::in_place), budget(64 * kMiB));
  std::vector<uint32_t> placed;
  for (uint32_t i = 0; i < plan.ranges.size(); ++i) {
    const auto grant = sink.try_reserve(i, 1, traits_of(4096), false);
    ASSERT_TRUE(grant);
    EXPECT_EQ(grant->slot, -1);
    EXPECT_TRUE(is_aligned(grant->target, 4096));
    EXPECT_EQ(grant->offset % 4096, 0U);
    model.read(*grant);
    sink.landed(*grant);
  }
  sink.poll(placed);
  EXPECT_EQ(placed.size(), plan.ranges.size());
  EXPECT_EQ(sink.stats().bytes_copied, 0U);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_TRUE(model.holds(sink.take(i), i));
}

TEST(HostSink, one_grant_serves_neighbouring_ranges) {
  const Model model({16 * kMiB});
  const Plan plan = model.plan();
  HostSink sink(model.index, plan, all(plan, Placement::in_place), budget(64 * kMiB));
  const auto grant = sink.try_reserve(0, 4, traits_of(4096), false);
  ASSERT_TRUE(grant);
  EXPECT_EQ(grant->count, 4U);
  EXPECT_EQ(grant->offset, 0U);
  EXPECT_FALSE(sink.try_reserve(3, 1, traits_of(4096), false));
  EXPECT_TRUE(sink.try_reserve(4, 1, traits_of(4096), false));
}

TEST(HostSink, a_range_behind_the_budget_waits_until_the_head_is_taken) {
  const Model model({4 * kMiB, 4 * kMiB, 4 * kMiB, 4 * kMiB}, 1 * kMiB);
  const Plan plan = model.plan();
  HostSink sink(model.index, plan, all(plan, Placement::in_place), budget(6 * kMiB));
  uint32_t granted = 0;
  const auto grant_all = [&] {
    while (granted < plan.ranges.size()) {
      const auto grant = sink.try_reserve(granted, 1, traits_of(4096), false);
      if (!grant) break;
      model.read(*grant);
      sink.landed(*grant);
      granted += grant->count;
    }
  };
  grant_all();
  EXPECT_EQ(granted, 8U);  // the head's 4 MiB, and 4 MiB ahead beside one slot
  EXPECT_LE(sink.stats().peak_staging, 6 * kMiB);
  EXPECT_TRUE(model.holds(sink.take(0), 0));
  grant_all();
  EXPECT_EQ(granted, 12U);
  for (uint32_t i = 1; i < 4; ++i) {
    EXPECT_TRUE(model.holds(sink.take(i), i));
    grant_all();
  }
  EXPECT_EQ(granted, 16U);
}

TEST(HostSink, what_alignment_adds_never_touches_a_neighbour) {
  // Asked for in an order that is not the file's: neighbours share a block.
  const Model model({10000, 10000, 10000});
  Selection backwards;
  for (const uint32_t i : {2U, 0U, 1U}) backwards.wants.push_back({i, {}});
  const Plan plan = make_plan(model.index, std::vector<Selection>{backwards});
  HostSink sink(model.index, plan, all(plan, Placement::in_place), budget(8 * kMiB));
  std::vector<Memory> taken;
  uint32_t next_target = 0;
  for (uint32_t i = 0; i < plan.ranges.size(); ++i) {
    const auto grant = sink.try_reserve(i, 1, traits_of(4096), false);
    ASSERT_TRUE(grant);
    model.read(*grant);
    sink.landed(*grant);
    while (next_target < 3 && plan.targets[next_target].last_range <= i) {
      taken.push_back(sink.take(next_target));
      EXPECT_TRUE(model.holds(taken.back(), plan.targets[next_target].tensor));
      std::memset(taken.back().data, 0x5A, taken.back().size);  // the consumer's now
      ++next_target;
    }
  }
  ASSERT_EQ(taken.size(), 3U);
  for (const Memory& memory : taken) {
    EXPECT_TRUE(std::all_of(memory.data, memory.data + memory.size,
                            [](std::byte byte) { return byte == std::byte{0x5A}; }));
  }
}

TEST(HostSink, replicas_never_share_memory) {
  const Model model({3 * kMiB, 5000});
  const Plan plan = model.plan(3);
  HostSink sink(model.index, plan, all(plan, Placement::in_place), budget(64 * kMiB));
  for (uint32_t i = 0; i < plan.ranges.size(); ++i) {
    const auto grant = sink.try_reserve(i, 1, traits_of(512), false);
    ASSERT_TRUE(grant);
    model.read(*grant);
    sink.landed(*grant);
  }
  std::vector<std::pair<uintptr_t, uintptr_t>> spans;
  std::vector<Memory> kept;
  for (uint32_t i = 0; i < plan.targets.size(); ++i) {
    kept.push_back(sink.take(i));
    EXPECT_TRUE(model.holds(kept.back(), plan.targets[i].tensor));
    const auto start = reinterpret_cast<uintptr_t>(kept.back().data);
    spans.emplace_back(start, start + kept.back().size);
  }
  std::sort(spans.begin(), spans.end());
  for (size_t i = 1; i < spans.size(); ++i) EXPECT_GE(spans[i].first, spans[i - 1].second);
}

TEST(HostSink, a_hedge_lands_in_its_own_slot_and_the_second_to_land_is_dropped) {
  const Model model({1000});
  const Plan plan = model.plan();
  HostSink sink(model.index, plan, all(plan, Placement::copied), budget(8 * kMiB));
  const auto first = sink.try_reserve(0, 1, traits_of(1), false);
  const auto hedge = sink.try_reserve(0, 1, traits_of(1), true);
  ASSERT_TRUE(first && hedge);
  EXPECT_NE(first->slot, hedge->slot);
  EXPECT_NE(first->target, hedge->target);
  model.read(*hedge);
  sink.landed(*hedge);
  std::vector<uint32_t> placed;
  sink.poll(placed);
  EXPECT_EQ(placed.size(), 1U);
  const Memory memory = sink.take(0);
  std::memset(first->target, 0, 1000);  // the late reader writes rubbish
  sink.landed(*first);
  placed.clear();
  sink.poll(placed);
  EXPECT_TRUE(placed.empty());
  EXPECT_TRUE(model.holds(memory, 0));
}

TEST(HostSink, nothing_read_in_place_can_be_hedged) {
  const Model model({kMiB});
  const Plan plan = model.plan();
  HostSink sink(model.index, plan, all(plan, Placement::in_place), budget(8 * kMiB));
  ASSERT_TRUE(sink.try_reserve(0, 1, traits_of(1), false));
  EXPECT_FALSE(sink.try_reserve(0, 1, traits_of(1), true));
}

TEST(HostSink, what_is_released_can_be_granted_again) {
  const Model model({kMiB});
  const Plan plan = model.plan();
  HostSink sink(model.index, plan, all(plan, Placement::copied), budget(2 * kMiB));
  for (int i = 0; i < 10; ++i) {
    const auto grant = sink.try_reserve(0, 1, traits_of(1), false);
    ASSERT_TRUE(grant);
    EXPECT_FALSE(sink.try_reserve(0, 1, traits_of(1), false));
    sink.release(*grant);
  }
}

// Resident bytes of these pages, as the kernel counts them.
uint64_t resident(const std::byte* data, uint64_t size) {
  std::vector<unsigned char> pages(size / 4096);
  ::mincore(const_cast<std::byte*>(data), size, pages.data());
  return 4096 *
         static_cast<uint64_t>(std::count_if(pages.begin(), pages.end(),
                                             [](unsigned char page) { return (page & 1) != 0; }));
}

TEST(HostSink, a_kept_tensor_pins_its_own_pages_and_two_mebibytes_at_most) {
  const Model model({20 * kMiB, 8192, 20 * kMiB}, 4096);
  const Plan plan = model.plan();
  HostSink sink(model.index, plan, all(plan, Placement::in_place), budget(64 * kMiB));
  for (uint32_t i = 0; i < plan.ranges.size(); ++i) {
    const auto grant = sink.try_reserve(i, 1, traits_of(4096), false);
    model.read(*grant);
    sink.landed(*grant);
  }
  Memory kept;
  std::byte* base = nullptr;
  {
    const Memory first = sink.take(0);
    kept = sink.take(1);
    const Memory last = sink.take(2);
    base = first.data - 4096;
    EXPECT_GT(resident(base, 40 * kMiB), 39 * kMiB);
  }
  EXPECT_LE(resident(base, 40 * kMiB), 8192 + 2 * kMiB);
  EXPECT_TRUE(model.holds(kept, 1));
}

TEST(HostSink, mapped_ranges_are_the_files_own_pages) {
  const Model model({3 * kMiB, 2 * kMiB + 5}, 77);
  std::string path = "/tmp/inrush-sink-XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_EQ(::write(fd, model.content.data(), model.content.size()),
            static_cast<ssize_t>(model.content.size()));
  Index index = model.index;
  index.blobs[0].fd = fd;
  const Plan plan = model.plan();
  HostSink sink(index, plan, all(plan, Placement::mapped), budget(8 * kMiB));
  const Memory first = sink.take(0);
  const Memory second = sink.take(1);
  EXPECT_TRUE(model.holds(first, 0));
  EXPECT_TRUE(model.holds(second, 1));
  EXPECT_TRUE(sink.layout().mapped[0]);
  std::memset(first.data, 0, first.size);  // private: the file stays as it is
  Bytes again(model.content.size());
  ASSERT_EQ(::pread(fd, again.data(), again.size(), 0), static_cast<ssize_t>(again.size()));
  EXPECT_EQ(again, model.content);
  ::close(fd);
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace inrush
