#include "inrush/shim/device_driver.h"

#include <filesystem>

#include "inrush/shim/device.h"
#include "tests/fake_driver/fixture.h"

namespace inrush {
namespace {

using test::DeviceTest;

std::string refusal(DeviceVendor vendor) {
  try {
    DeviceDriver::load(vendor);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    return error.message();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(DeviceTest, both_vendors_are_asked_through_one_table) {
  const auto cuda = DeviceDriver::load(DeviceVendor::cuda);
  EXPECT_EQ(cuda->device_count(), 2);
  EXPECT_EQ(cuda->version_text(), "12.8");
  EXPECT_EQ(cuda->describe(1).name, "Fake GPU 1");
  EXPECT_EQ(cuda->describe(1).bus, "FFFF:01:00.0");
  EXPECT_EQ(cuda->describe(1).numa_node, 0);
  const auto hip = DeviceDriver::load(DeviceVendor::hip);
  EXPECT_EQ(hip->version_text(), "6.2");
  EXPECT_EQ(hip->describe(0).name, "Fake APU 0");
  EXPECT_EQ(hip->describe(0).numa_node, -1);
}

TEST_F(DeviceTest, asking_makes_no_context) {
  static_cast<void>(DeviceDriver::load(DeviceVendor::cuda)->describe(0));
  static_cast<void>(DeviceDriver::load(DeviceVendor::hip)->describe(0));
  EXPECT_EQ(driver.touched(), 0U);
}

TEST_F(DeviceTest, a_device_holds_its_own_primary_context_and_no_other) {
  const auto cuda = DeviceDriver::load(DeviceVendor::cuda);
  {
    const Device device(cuda, 1);
    device.free(device.allocate(4096));
    EXPECT_EQ(driver.touched(), 2U);
    EXPECT_NE(driver.report(), "");  // the context
  }
  EXPECT_EQ(driver.report(), "");
}

TEST_F(DeviceTest, why_a_driver_is_not_used) {
  driver.set("cuda_version", 11080);
  EXPECT_TRUE(contains(refusal(DeviceVendor::cuda), "too old: it supports CUDA 11.8, 12.0"));
  driver.set("hip_version", 43100000);
  EXPECT_TRUE(contains(refusal(DeviceVendor::hip), "too old: it supports HIP 4.31"));
  driver.set("cuda_version", 13000);
  driver.set("hip_version", 70000000);
  EXPECT_EQ(refusal(DeviceVendor::cuda), "");
  driver.set("devices", 0);
  EXPECT_TRUE(contains(refusal(DeviceVendor::cuda), "CUDA_ERROR_NO_DEVICE (100)"));
  EXPECT_TRUE(contains(refusal(DeviceVendor::hip), "(100)"));
  ::setenv("INRUSH_CUDA_LIBRARY", "off", 1);
  EXPECT_TRUE(contains(refusal(DeviceVendor::cuda), "switched off"));
  ::setenv("INRUSH_CUDA_LIBRARY", "/nowhere/libcuda.so.1", 1);
  EXPECT_TRUE(contains(refusal(DeviceVendor::cuda), "/nowhere/libcuda.so.1"));
  ::setenv("INRUSH_CUDA_LIBRARY", "libm.so.6", 1);
  EXPECT_TRUE(contains(refusal(DeviceVendor::cuda), "has no cuInit"));
}

// As torch's wheels bring it: under a name that no search would find.
TEST_F(DeviceTest, rocms_runtime_is_the_one_that_is_in_the_process) {
  ::unsetenv("INRUSH_HIP_LIBRARY");
  char folder[] = "/tmp/inrush-hip-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::filesystem::path here(folder);
  std::vector<void*> handles;
  for (const char* name : {"libamdhip64.so", "libamdhip64-1b2c3d.so.6.2", "libamdhip64_other.so"}) {
    std::filesystem::copy_file(INRUSH_FAKE_DRIVER, here / name);
    handles.push_back(::dlopen((here / name).c_str(), RTLD_NOW | RTLD_LOCAL));
    ASSERT_NE(handles.back(), nullptr) << ::dlerror();
    const std::string used = name == std::string("libamdhip64_other.so")
                                 ? "libamdhip64-1b2c3d.so.6.2"
                                 : std::string(name);
    EXPECT_EQ(DeviceDriver::load(DeviceVendor::hip)->library(), here / used);
  }
  ::setenv("INRUSH_HIP_LIBRARY", "off", 1);
  EXPECT_TRUE(contains(refusal(DeviceVendor::hip), "switched off"));
  for (void* handle : handles) ::dlclose(handle);
  std::filesystem::remove_all(here);
}

TEST_F(DeviceTest, a_wrong_index_is_an_error_that_counts_the_devices) {
  const auto cuda = DeviceDriver::load(DeviceVendor::cuda);
  for (const int index : {-1, 2}) {
    try {
      const Device device(cuda, index);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_TRUE(contains(error.message(), "there are 2 devices")) << error.message();
    }
  }
}

TEST_F(DeviceTest, out_of_memory_tells_how_much_is_free) {
  driver.set("memory", 1 << 20);
  const Device device(DeviceDriver::load(DeviceVendor::cuda), 0);
  try {
    static_cast<void>(device.allocate(2 << 20));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::memory);
    EXPECT_EQ(error.message(),
              "allocate 2097152 bytes (1048576 of 1048576 are free) on cuda:0: "
              "CUDA_ERROR_OUT_OF_MEMORY (2)");
  }
}

}  // namespace
}  // namespace inrush
