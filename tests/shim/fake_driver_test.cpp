// The fake driver itself: what tests rely on it to punish, it punishes.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#include "inrush/base/fd.h"
#include "inrush/shim/cufile.h"
#include "inrush/shim/device.h"
#include "tests/fake_driver/fixture.h"

namespace inrush {
namespace {

constexpr uint64_t kSize = 64 << 10;

class FakeDriverTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(driver.found());
    vendor_driver = DeviceDriver::load(DeviceVendor::cuda);
    device.emplace(vendor_driver, 0);
    memory.reset(static_cast<std::byte*>(std::aligned_alloc(4096, kSize)));
    address = device->allocate(kSize);
    device->pin(memory.get(), kSize);
    stream = device->make_stream();
  }
  void TearDown() override {
    if (!device) return;
    device->wait(stream);
    device->destroy(stream);
    device->unpin(memory.get());
    device->free(address);
    device.reset();
  }

  [[nodiscard]] DeviceCopy whole(const std::byte* source) const {
    DeviceCopy copy;
    copy.target = address;
    copy.source = source;
    copy.row_size = kSize;
    return copy;
  }
  // Whether it blames somebody for that.
  [[nodiscard]] bool blames(const char* what) const {
    return driver.report().find(what) != std::string::npos;
  }

  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  test::FakeDriver driver;
  std::shared_ptr<const DeviceDriver> vendor_driver;
  std::optional<Device> device;
  std::unique_ptr<std::byte, Free> memory;
  vendor::Address address = 0;
  vendor::Stream stream = nullptr;
};

TEST_F(FakeDriverTest, blames_nobody_for_what_is_right) {
  device->copy(whole(memory.get()), stream);
  device->wait(stream);
  TearDown();
  EXPECT_EQ(driver.report(), "");
}

TEST_F(FakeDriverTest, sees_a_copy_from_memory_that_is_not_pinned) {
  const std::unique_ptr<std::byte, Free> other(
      static_cast<std::byte*>(std::aligned_alloc(4096, kSize)));
  device->copy(whole(other.get()), stream);
  device->wait(stream);
  EXPECT_TRUE(blames("an asynchronous copy from memory that is not pinned"));
}

TEST_F(FakeDriverTest, sees_a_slot_that_is_overwritten_before_its_event) {
  driver.set("copy_delay_us", 200'000);
  device->copy(whole(memory.get()), stream);
  memory.get()[77] ^= std::byte{1};
  device->wait(stream);
  EXPECT_TRUE(blames("overwritten before it had run"));
}

TEST_F(FakeDriverTest, sees_memory_that_is_used_before_it_is_ready) {
  const vendor::Stream second = device->make_stream();
  driver.set("copy_delay_us", 1000);
  device->copy(whole(memory.get()), stream);
  device->copy(whole(memory.get()), second);
  device->wait(stream);
  device->wait(second);
  device->destroy(second);
  EXPECT_TRUE(blames("uses memory that another stream has not done with"));
}

TEST_F(FakeDriverTest, takes_an_event_between_two_streams_for_an_order) {
  const vendor::Stream second = device->make_stream();
  const vendor::Event event = device->make_event();
  driver.set("copy_delay_us", 1000);
  device->copy(whole(memory.get()), stream);
  device->record(event, stream);
  device->wait_on_stream(second, event);
  device->copy(whole(memory.get()), second);
  device->wait(second);
  device->destroy(second);
  device->destroy(event);
  TearDown();
  EXPECT_EQ(driver.report(), "");
}

TEST_F(FakeDriverTest, sees_what_belongs_to_another_device) {
  const Device other(vendor_driver, 1);
  const vendor::Event event = other.make_event();
  EXPECT_THROW(device->record(event, stream), Error);
  EXPECT_TRUE(blames("an event of one device was recorded on a stream of another"));
  const vendor::Stream far = other.make_stream();
  other.copy(whole(memory.get()), far);
  other.wait(far);
  EXPECT_TRUE(blames("a copy on a stream of another device"));
  other.destroy(far);
  other.destroy(event);
}

TEST_F(FakeDriverTest, counts_all_that_is_not_given_back) {
  const vendor::Event event = device->make_event();
  for (const char* what :
       {"1 allocations", "1 pinned pieces of memory", "1 streams", "1 events", "1 contexts"}) {
    EXPECT_TRUE(blames((std::string(what) + " not given back").c_str())) << what;
  }
  device->destroy(event);
}

TEST_F(FakeDriverTest, sees_memory_that_is_unpinned_while_a_copy_reads_it) {
  driver.set("copy_delay_us", 200'000);
  device->copy(whole(memory.get()), stream);
  device->unpin(memory.get());
  device->wait(stream);
  device->pin(memory.get(), kSize);
  EXPECT_TRUE(blames("unpinned while a copy read it"));
}

class FakeCuFileTest : public FakeDriverTest {
 protected:
  void SetUp() override {
    FakeDriverTest::SetUp();
    path = testing::TempDir() + "/fake_cufile_" + std::to_string(::getpid());
    Fd made(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(made.get(), kSize), 0);
    fd = Fd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    if (!fd) GTEST_SKIP() << path << " has no direct I/O";
    library.emplace(false);
    device->inside([&] { file = library->add_file(fd.get(), path); });
  }
  void TearDown() override {
    if (file != nullptr) library->remove_file(std::exchange(file, nullptr));
    FakeDriverTest::TearDown();
    ::unlink(path.c_str());
  }
  [[nodiscard]] int64_t read(uint64_t size, uint64_t offset) const {
    int64_t result = 0;
    device->inside([&] { result = library->read(file, address, size, offset, 0); });
    return result;
  }

  std::string path;
  Fd fd;
  std::optional<CuFile> library;
  vendor::FileHandle file = nullptr;
};

TEST_F(FakeCuFileTest, sees_reads_into_memory_that_is_not_registered) {
  EXPECT_EQ(read(kSize, 0), kSize);
  EXPECT_TRUE(blames("cuFile reads into memory that is not registered"));
}

TEST_F(FakeCuFileTest, sees_reads_that_are_not_aligned_and_those_in_no_context) {
  device->inside([&] { library->add_memory(address, kSize); });
  EXPECT_LT(library->read(file, address, kSize, 0, 0), 0);
  EXPECT_EQ(read(kSize, 0), kSize);
  EXPECT_FALSE(blames("cuFile reads"));
  static_cast<void>(read(512, 512));
  EXPECT_TRUE(blames("cuFile reads what is not aligned"));
  EXPECT_TRUE(blames("1 registrations with cuFile not given back"));
  EXPECT_TRUE(blames("1 files of cuFile not given back"));
  library->remove_memory(address);
}

TEST_F(FakeCuFileTest, sees_storage_write_where_a_stream_still_reads) {
  device->inside([&] { library->add_memory(address, kSize); });
  driver.set("copy_delay_us", 50'000);
  const vendor::Address target = device->allocate(kSize);
  DeviceCopy copy = whole(reinterpret_cast<const std::byte*>(address));
  copy.target = target;
  copy.from_device = true;
  device->copy(copy, stream);
  EXPECT_EQ(read(kSize, 0), kSize);
  EXPECT_TRUE(blames("storage writes memory that a stream has not done with"));
  device->wait(stream);
  device->free(target);
  library->remove_memory(address);
}

TEST_F(FakeCuFileTest, sees_memory_that_is_freed_while_it_is_registered) {
  const vendor::Address other = device->allocate(kSize);
  device->inside([&] { library->add_memory(other, kSize); });
  device->free(other);
  library->remove_memory(other);
  EXPECT_TRUE(blames("memory was freed that is registered with cuFile"));
}

}  // namespace
}  // namespace inrush
