// A test with the fake driver in place of a vendor's: a machine as new before it, an empty ledger
// after it. The test reaches the fake through the loader, as the shim does.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/fake_driver/fake.h"

namespace inrush::test {

inline constexpr const char* kLibraries[] = {"INRUSH_CUDA_LIBRARY", "INRUSH_HIP_LIBRARY",
                                             "INRUSH_CUFILE_LIBRARY"};

class FakeDriver {
 public:
  FakeDriver() : library_(::dlopen(INRUSH_FAKE_DRIVER, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
    if (library_ == nullptr) return;
    for (const char* name : kLibraries) {
      ::setenv(name, INRUSH_FAKE_DRIVER, 1);
    }
    call<decltype(fake_reset)>("fake_reset")();
  }
  ~FakeDriver() {
    for (const char* name : kLibraries) {
      ::unsetenv(name);
    }
  }
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;

  [[nodiscard]] bool found() const { return library_ != nullptr; }
  void reset() const { call<decltype(fake_reset)>("fake_reset")(); }
  // As others in the process may.
  void open_cufile() const { call<int64_t()>("cuFileDriverOpen")(); }
  void set(const char* what, int64_t value) const {
    call<decltype(fake_set)>("fake_set")(what, value);
  }
  void fail(const char* name, int64_t after, int result) const {
    call<decltype(fake_fail)>("fake_fail")(name, after, result);
  }
  [[nodiscard]] int64_t count(const char* name = nullptr) const {
    return call<decltype(fake_count)>("fake_count")(name);
  }
  [[nodiscard]] uint64_t touched() const { return call<decltype(fake_touched)>("fake_touched")(); }
  [[nodiscard]] void* map(const void* address) const {
    return call<decltype(fake_map)>("fake_map")(reinterpret_cast<uint64_t>(address));
  }
  void use(const void* address, size_t size, void* stream, int64_t delay_us) const {
    call<decltype(fake_use)>("fake_use")(reinterpret_cast<uint64_t>(address), size, stream,
                                         delay_us);
  }
  [[nodiscard]] void* consumer_stream(int device) const {
    return call<decltype(fake_consumer_stream)>("fake_consumer_stream")(device);
  }
  // Empty: nothing was done wrong, and everything was given back.
  [[nodiscard]] std::string report() const {
    std::string text(4096, '\0');
    text.resize(call<decltype(fake_report)>("fake_report")(text.data(), text.size()));
    return text;
  }

 private:
  template <typename Function>
  Function* call(const char* name) const {
    return reinterpret_cast<Function*>(::dlsym(library_, name));
  }

  void* library_;
};

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(driver.found()) << ::dlerror(); }
  void TearDown() override { EXPECT_EQ(driver.report(), ""); }

  FakeDriver driver;
};

}  // namespace inrush::test
