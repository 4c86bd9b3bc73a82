// Whole loads into device memory, against a driver that remembers what was done wrong.
#pragma once

#include "inrush/checkpoint.h"
#include "inrush/device.h"
#include "tests/fake_driver/fixture.h"
#include "tests/load/fixture.h"

namespace inrush::test {

inline constexpr uint64_t kMiB = 1ULL << 20;

class DeviceLoad : public DeviceTest {
 protected:
  DeviceLoad() { ::setenv("INRUSH_PROFILE", "off", 1); }

  // Tensors of all sorts of sizes, so that they begin at any offset.
  void write_checkpoint() {
    folder.shard("model-1.safetensors", "a", {3 * kMiB + 5, 17, 4096, 1, 700'001, 0, 12}, 3);
    folder.shard("model-2.safetensors", "b", {64, 64, 64, 2 * kMiB, 8192, 8192, 5 * kMiB});
  }

  [[nodiscard]] Load begin(const std::vector<std::string>& devices,
                           LoadOptions options = {}) const {
    deliver_to(options, {.devices = devices, .place = {}, .consumer_stream = {}});
    return {Checkpoint::open(folder.path()), std::move(options)};
  }

  // What is in a tensor, wherever it lies.
  [[nodiscard]] Bytes bytes_of(const Memory& memory) const {
    if (memory.size == 0) return {};
    const void* at = memory.kind == MemoryKind::device ? driver.map(memory.data) : memory.data;
    const auto* begin = static_cast<const std::byte*>(at);
    return begin == nullptr ? Bytes{} : Bytes(begin, begin + memory.size);
  }

  // How many tensors came, all of them right.
  size_t drain(Load& load) const {
    size_t count = 0;
    while (const auto tensor = load.next()) {
      EXPECT_EQ(bytes_of(tensor->memory), folder.expected.at(tensor->name)) << tensor->name;
      ++count;
    }
    return count;
  }

  // The error that a load ends with, or "".
  [[nodiscard]] std::string failure(const std::vector<std::string>& devices,
                                    LoadOptions options = {}) const {
    try {
      Load load = begin(devices, std::move(options));
      while (load.next()) {
      }
    } catch (const Error& error) {
      return error.message();
    }
    return "";
  }

  // Fails call after call of the driver, with this code, in a load each; how many of them failed.
  // Nothing is left behind, and the error, if there is one, is a driver's.
  int64_t fail_each_call(const std::function<std::string()>& run, int code) const {
    const int64_t before = driver.count();
    EXPECT_EQ(run(), "");
    const int64_t calls = driver.count() - before;
    int64_t failures = 0;
    for (int64_t i = 0; i < calls; i += i < 120 ? 1 : 5) {
      driver.fail(nullptr, i, code);
      failures += run().empty() ? 0 : 1;
      driver.fail(nullptr, -1, 0);
      EXPECT_EQ(driver.report(), "") << i;
    }
    EXPECT_EQ(run(), "");
    return failures;
  }

  // Loses the device after so many calls of the driver: nothing is left behind.
  void lose_device(const std::function<std::string()>& run) const {
    for (const int64_t lost : {60, 100, 140, 180}) {
      driver.set("lost_after", lost);
      static_cast<void>(run());
      driver.set("lost_after", -1);
      EXPECT_EQ(driver.report(), "") << lost;
    }
    EXPECT_EQ(run(), "");
  }

  Folder folder;
};

}  // namespace inrush::test
