// Tensors whose elements are not aligned in their file, as in tensorizer's.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "inrush/base/align.h"
#include "inrush/core/select.h"
#include "inrush/sinks/host.h"

namespace inrush {
namespace {

using Bytes = std::vector<std::byte>;

// One blob, in a file too: tensors of random dtypes and sizes with random gaps between them.
struct Scattered {
  Index index;
  Bytes content;
  int fd = -1;

  explicit Scattered(uint64_t seed, uint64_t largest) {
    std::mt19937_64 random(seed);
    uint64_t offset = 100 + random() % 100;
    for (int i = 0; i < 12; ++i) {
      TensorInfo tensor;
      tensor.name = "t" + std::to_string(100 + i);
      const Dtype dtypes[] = {Dtype::u8, Dtype::f16, Dtype::f32, Dtype::f64};
      tensor.dtype = dtypes[random() % 4];
      const uint64_t width = alignment_of(tensor.dtype);
      tensor.shape = {1 + random() % (i % 3 == 0 ? largest : 2000) / width};
      tensor.size = tensor.shape[0] * width;
      tensor.offset = offset;
      offset += tensor.size + random() % 300 * (random() % 3);
      index.tensors.push_back(tensor);
    }
    content.resize(offset);
    for (auto& byte : content) byte = static_cast<std::byte>(random());
    Blob blob;
    blob.name = "blob";
    blob.size = offset;
    std::string path = "/tmp/inrush-moved-XXXXXX";
    blob.fd = fd = ::mkstemp(path.data());
    ::unlink(path.c_str());
    EXPECT_EQ(::write(fd, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    index.blobs.push_back(blob);
    index.metadata.emplace_back();
    index.finish();
  }
  ~Scattered() { ::close(fd); }
  Scattered(const Scattered&) = delete;
  Scattered& operator=(const Scattered&) = delete;

  [[nodiscard]] Plan plan(const PlanLimits& limits) const {
    return make_plan(index, {{{select(index, {})}}}, limits);
  }

  void read(const Grant& grant) const {
    const uint64_t end = std::min<uint64_t>(grant.offset + grant.size, content.size());
    std::memcpy(grant.target, content.data() + grant.offset, end - grant.offset);
  }
};

// Grants in a random order, several at once, which land in another one.
void load_at_random(const Scattered& model, const Plan& plan, HostSink& sink,
                    std::mt19937_64& random) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < plan.ranges.size(); ++i) {
    if (sink.layout().placements[i] != Placement::mapped) order.push_back(i);
  }
  std::shuffle(order.begin(), order.end(), random);
  const uint32_t alignments[] = {1, 1, 512, 4096};
  std::vector<Grant> flying;
  const auto land = [&] {
    std::shuffle(flying.begin(), flying.end(), random);
    for (const Grant& grant : flying) {
      model.read(grant);
      sink.landed(grant);
    }
    flying.clear();
  };
  for (const uint32_t range : order) {
    EngineTraits traits;
    traits.memory_align = traits.offset_align = alignments[random() % 4];
    const auto grant = sink.try_reserve(range, 1 + random() % 3, traits, false);
    if (grant) flying.push_back(*grant);  // else it came with another one
    if (random() % 3 == 0) land();
  }
  land();
}

TEST(MovedTensors, no_byte_of_one_ever_lies_on_another) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const Scattered model(seed, 60'000);
    PlanLimits limits;
    limits.range_size = 16 * kKiB;
    limits.merge_gap = random() % 200;
    const Plan plan = model.plan(limits);
    std::vector<Placement> placements(plan.ranges.size(), Placement::in_place);
    for (Placement& one : placements) {
      if (seed % 2 == 1 && random() % 2 == 0) one = Placement::mapped;
    }
    SinkOptions options;
    options.budget = 4 * kMiB;
    HostSink sink(model.index, plan, placements, std::move(options));
    load_at_random(model, plan, sink, random);
    std::vector<Memory> taken;
    for (uint32_t i = 0; i < plan.targets.size(); ++i) taken.push_back(sink.take(i));
    for (uint32_t i = 0; i < taken.size(); ++i) {
      const TensorInfo& tensor = model.index.tensors[plan.targets[i].tensor];
      EXPECT_TRUE(is_aligned(taken[i].data, alignment_of(tensor.dtype))) << tensor.name;
      EXPECT_EQ(std::memcmp(taken[i].data, model.content.data() + tensor.offset, tensor.size), 0)
          << tensor.name;
      std::memset(taken[i].data, 0x5A, taken[i].size);  // the consumer's now
    }
    for (const Memory& memory : taken) {
      EXPECT_TRUE(std::all_of(memory.data, memory.data + memory.size,
                              [](std::byte byte) { return byte == std::byte{0x5A}; }));
    }
  }
}

// Two tensors of 32 bits behind headers, neither of them aligned.
Index misaligned(uint64_t size) {
  Index index;
  uint64_t offset = 301;
  for (const char* name : {"a", "b"}) {
    TensorInfo tensor;
    tensor.name = name;
    tensor.dtype = Dtype::f32;
    tensor.shape = {size / 4};
    tensor.offset = offset;
    tensor.size = size;
    offset += size + 162;
    index.tensors.push_back(tensor);
  }
  Blob blob;
  blob.name = "blob";
  blob.size = offset;
  index.blobs.push_back(blob);
  index.metadata.emplace_back();
  index.finish();
  return index;
}

TEST(MovedTensors, are_read_in_place_but_for_the_ranges_that_they_share) {
  const Index index = misaligned(8 * kMiB);
  Selection all;
  all.wants = {{0, {}}, {1, {}}};
  const Plan plan = make_plan(index, std::vector<Selection>{all});
  const std::vector<Placement> placements(plan.ranges.size(), Placement::in_place);
  SinkOptions options;
  options.budget = 64 * kMiB;
  HostSink sink(index, plan, placements, std::move(options));
  uint64_t in_slots = 0;
  for (uint32_t i = 0; i < plan.ranges.size(); ++i) {
    const auto grant = sink.try_reserve(i, 1, EngineTraits{}, false);
    ASSERT_TRUE(grant);
    in_slots += grant->slot >= 0 ? 1 : 0;
    sink.landed(*grant);
  }
  EXPECT_LE(in_slots, 1U);
  // One stretch of memory, in which huge pages go on from one tensor to the next.
  const std::byte* const first = sink.take(0).data;
  const std::byte* const second = sink.take(1).data;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second) % 64, 0U);
  EXPECT_LE(second - (first + 8 * kMiB), 162 + 64);
  EXPECT_GE(second - (first + 8 * kMiB), 0);
}

}  // namespace
}  // namespace inrush
