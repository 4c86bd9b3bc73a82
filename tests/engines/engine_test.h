// A test over the ways to read. Whatever this machine lacks is skipped with the engine's own
// reason. Where a device takes part it is the fake driver's, whose ledger has to be empty at the
// end.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "tests/engines/scratch.h"
#include "tests/engines/servers.h"
#include "tests/engines/target.h"
#include "tests/engines/ways.h"

namespace inrush::testing {

class EngineTest : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (GetParam().memory != MemoryKind::host) set_up_device();
    const std::string reason = find_engine(GetParam().engine)->unusable();
    if (!reason.empty()) GTEST_SKIP() << reason;
    if (GetParam().remote) {
      servers_ = std::make_unique<Servers>(GetParam().engine, folder_.path());
      if (!servers_->are_there()) GTEST_SKIP() << "redis-server is not installed";
    }
    if (!GetParam().direct) return;
    const Blob probe = open_blob(folder_.write("probe", random_bytes(8192, 0)));
    try {
      auto engine = make();
      const auto target = target_for(*engine, probe);
      engine->open(probe);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }

  std::unique_ptr<Engine> make(uint32_t depth = 16, int wake_fd = -1) {
    EngineOptions options;
    options.direct = GetParam().direct;
    options.on_lane = GetParam().on_lane;
    options.depth = depth;
    options.wake_fd = wake_fd;
    return layered(find_engine(GetParam().engine)->make(options), GetParam().layer);
  }

  // These bytes under that name, where the way's engine reads.
  Blob blob_of(const std::string& name, const Bytes& bytes) {
    return servers_ ? servers_->blob(name, bytes) : open_blob(folder_.write(name, bytes));
  }

  void TearDown() override {
    device_.reset();
    if (!driver_) return;
    EXPECT_EQ(driver_->report(), "");
  }

  // Memory that a whole blob can be read into, told to the engine.
  std::unique_ptr<Target> target_for(Engine& engine, const Blob& blob) {
    if (GetParam().mapped) {
      auto mapping = std::make_unique<Target>(blob.size, blob.fd);
      engine.attach(mapping->region());
      return mapping;
    }
    return target_of(engine, blob.size + 1);
  }

  std::unique_ptr<Target> target_of(Engine& engine, uint64_t size) {
    auto target = device_ ? std::make_unique<Target>(size, device_, *driver_, GetParam().memory)
                          : std::make_unique<Target>(size);
    engine.attach(target->region());
    return target;
  }

  Folder folder_;

 private:
  void set_up_device() {
    driver_.emplace();
    ASSERT_TRUE(driver_->found()) << ::dlerror();
    driver_->set("touchable", 1);
    device_ = std::make_shared<const Device>(DeviceDriver::load(DeviceVendor::cuda), 0);
  }

  std::unique_ptr<Servers> servers_;
  std::optional<test::FakeDriver> driver_;
  std::shared_ptr<const Device> device_;
};

}  // namespace inrush::testing
