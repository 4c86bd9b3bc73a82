#include "inrush/sinks/device_copies.h"

#include <chrono>
#include <cstring>
#include <future>
#include <mutex>
#include <numeric>
#include <semaphore>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/sinks/pinned_ring.h"
#include "tests/fake_driver/fixture.h"
#include "tests/fake_driver/two_nodes.h"

namespace inrush {
namespace {

using test::DeviceTest;
using test::TwoNodes;

TEST_F(DeviceTest, what_waits_for_copies_stays_on_the_devices_node) {
  const int cpu = TwoNodes::cpu();
  if (cpu < 0) GTEST_SKIP() << "this process may use one CPU only";
  const TwoNodes nodes;
  driver.set("numa_node", -1);  // the kernel tells it
  const auto device =
      std::make_shared<const Device>(DeviceDriver::load(DeviceVendor::cuda), 0, nodes.root());
  EXPECT_EQ(device->numa().number, 1);
  PinnedRing ring(device, kMiB, 2);
  std::memset(ring.slot(0), 7, kMiB);
  const vendor::Address target = device->allocate(kMiB);
  std::promise<bool> there;
  {
    DeviceCopies copies(device, {.first = 2, .most = 2},
                        {[&](uint64_t) { there.set_value(TwoNodes::here(cpu)); }, [] {},
                         [&](const Error& error) { ADD_FAILURE() << error.what(); }});
    DeviceCopy copy;
    copy.target = target;
    copy.source = ring.slot(0);
    copy.row_size = kMiB;
    copies.submit({&copy, 1}, 1);
    EXPECT_TRUE(there.get_future().get());
  }
  EXPECT_FALSE(TwoNodes::here(cpu));
  device->free(target);
}

TEST_F(DeviceTest, a_ring_is_touched_before_it_is_pinned) {
  const TwoNodes nodes;
  driver.set("numa_node", -1);  // the kernel tells it, where the machine has it
  for (const std::string& root : {std::string(), nodes.root()}) {
    const auto device =
        std::make_shared<const Device>(DeviceDriver::load(DeviceVendor::cuda), 0, root);
    PinnedRing ring(device, kMiB + 4096, 40);
    while (ring.pinned() < 40) ring.grow();
    EXPECT_EQ(driver.count("cuMemHostRegister_v2") % 3, 0);
    EXPECT_EQ(driver.count("absent pages"), 0);
    for (uint64_t i = 0; i < 40; ++i) EXPECT_EQ(ring.slot(i)[kMiB], std::byte{0});
  }
}

TEST_F(DeviceTest, copies_wait_for_every_stream_that_the_consumer_worked_on) {
  const auto device = std::make_shared<const Device>(DeviceDriver::load(DeviceVendor::cuda), 0);
  PinnedRing ring(device, kMiB, 2);
  std::memset(ring.slot(0), 7, kMiB);
  const vendor::Address target = device->allocate(kMiB);
  std::promise<void> copied;
  {
    DeviceCopies copies(device, {.first = 2, .most = 2},
                        {[&](uint64_t) { copied.set_value(); }, [] {},
                         [&](const Error& error) { ADD_FAILURE() << error.what(); }});
    auto* const busy = static_cast<vendor::Stream>(driver.consumer_stream(0));
    driver.use(reinterpret_cast<void*>(target), kMiB, busy, 20'000);
    copies.fence(busy);
    copies.fence(static_cast<vendor::Stream>(driver.consumer_stream(0)));
    DeviceCopy copy;
    copy.target = target;
    copy.source = ring.slot(0);
    copy.row_size = kMiB;
    copies.submit({&copy, 1}, 1);
    copied.get_future().wait();
  }
  const auto* const at = static_cast<const char*>(driver.map(reinterpret_cast<void*>(target)));
  EXPECT_EQ(at[0], 7);
  device->free(target);
}

// Each stream of this driver copies one batch in 1 ms, whatever the others do.
TEST_F(DeviceTest, more_streams_copy_while_that_is_faster) {
  constexpr uint32_t kBatches = 32;  // under way
  constexpr uint64_t kSize = 64 * kKiB;
  driver.set("copy_delay_us", 1000);
  const auto device = std::make_shared<const Device>(DeviceDriver::load(DeviceVendor::cuda), 0);
  PinnedRing ring(device, kSize, 2);
  std::memset(ring.slot(0), 7, kSize);
  const vendor::Address target = device->allocate(kBatches * kSize);
  std::counting_semaphore<kBatches> room(kBatches);
  std::mutex mutex;
  std::vector<uint64_t> free(kBatches);  // parts of the target that nothing writes to
  std::iota(free.begin(), free.end(), 0);
  uint32_t streams = 0;
  {
    DeviceCopies copies(device, {.first = 2, .most = 8},
                        {[&](uint64_t part) {
                           {
                             const std::lock_guard lock(mutex);
                             free.push_back(part);
                           }
                           room.release();
                         },
                         [] {}, [&](const Error& error) { ADD_FAILURE() << error.what(); }});
    EXPECT_EQ(copies.streams(), 2U);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (streams < 8 && std::chrono::steady_clock::now() < until) {
      room.acquire();
      DeviceCopy copy;
      uint64_t part = 0;
      {
        const std::lock_guard lock(mutex);
        part = free.back();
        free.pop_back();
      }
      copy.target = target + part * kSize;
      copy.source = ring.slot(0);
      copy.row_size = kSize;
      copies.submit({&copy, 1}, part);
      streams = copies.streams();
    }
    EXPECT_TRUE(copies.finish(Clock::now() + std::chrono::seconds(10)));
  }
  EXPECT_EQ(streams, 8U);
  device->free(target);
}

}  // namespace
}  // namespace inrush
