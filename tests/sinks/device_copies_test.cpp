#include "inrush/sinks/device_copies.h"

#include <cstring>
#include <future>

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
    DeviceCopies copies(device, 2,
                        {[&](uint64_t) { there.set_value(TwoNodes::here(cpu)); },
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

}  // namespace
}  // namespace inrush
