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

  Folder folder;
};

}  // namespace inrush::test
