// One load from several places at once: who takes how much, who fails, who keeps silent.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/engines/engines.h"
#include "inrush/load.h"
#include "tests/load/doubles.h"
#include "tests/load/fixture.h"
#include "tests/load/property_case.h"

namespace inrush {
namespace {

using namespace std::chrono_literals;
using test::FileBytes;
using test::Nature;
using test::Random;
using test::Remote;
using test::RemoteEngine;
using test::RemoteStore;

// The same files in several places, and an engine for each of them.
class Mirrors : public testing::Test {
 protected:
  void make(std::vector<Nature> natures, uint64_t bytes = 24 * kMiB) {
    Random random(77);
    files_ = test::random_files(random, bytes);
    for (const Nature& nature : natures) {
      auto remote = std::make_shared<Remote>();
      for (const auto& [name, content] : files_) remote->put(name, content);
      remotes_.push_back(remote);
      natures_.push_back(nature);
    }
  }

  Checkpoint open() {
    std::vector<Checkpoint> places;
    for (const auto& remote : remotes_) {
      places.push_back(Checkpoint::open(std::make_unique<RemoteStore>(remote)));
    }
    return Checkpoint::join(std::move(places));
  }

  LoadOptions options() {
    LoadOptions options;
    options.engines = [this](const std::string&, const EngineOptions& asked) {
      return std::make_unique<RemoteEngine>(remotes_[asked.source], natures_[asked.source],
                                            asked.wake_fd);
    };
    return options;
  }

  // Everything, compared with what it must be.
  LoadStats load_all(LoadOptions asked) {
    const Checkpoint checkpoint = open();
    Load load(checkpoint, std::move(asked));
    size_t count = 0;
    while (auto tensor = load.next()) {
      const TensorInfo& info = *checkpoint.index().find(tensor->name);
      const FileBytes& file = files_.at(checkpoint.index().blobs[info.blob].name);
      const FileBytes loaded(tensor->memory.data, tensor->memory.data + tensor->memory.size);
      EXPECT_EQ(loaded, test::wanted_bytes(file, info, {})) << tensor->name;
      ++count;
    }
    EXPECT_EQ(count, checkpoint.index().tensors.size());
    for (const auto& remote : remotes_) EXPECT_EQ(remote->violations, 0);
    return load.stats();
  }

  std::map<std::string, FileBytes> files_;
  std::vector<std::shared_ptr<Remote>> remotes_;
  std::vector<Nature> natures_;
};

TEST_F(Mirrors, a_faster_place_takes_more) {
  make({{.bytes_per_second = 40 * kMiB}, {.bytes_per_second = 160 * kMiB}});
  const LoadStats stats = load_all(options());
  ASSERT_EQ(stats.sources.size(), 2U);
  EXPECT_GT(stats.sources[0].bytes, 0U);
  EXPECT_GT(stats.sources[1].bytes, stats.sources[0].bytes);
  EXPECT_LE(stats.sources[0].hedges + stats.sources[1].hedges, 2U);
}

TEST_F(Mirrors, what_fails_now_and_then_at_each_is_read_in_the_end) {
  make({{.jitter = 2ms, .failing = 0.05, .seed = 3}, {.jitter = 2ms, .failing = 0.05, .seed = 4}});
  const LoadStats stats = load_all(options());
  EXPECT_EQ(stats.sources[0].given_up && stats.sources[1].given_up, false);
}

TEST_F(Mirrors, a_place_that_dies_leaves_its_ranges_to_the_others) {
  make({{.bytes_per_second = 80 * kMiB, .dies_after = 5}, {.bytes_per_second = 80 * kMiB}});
  const LoadStats stats = load_all(options());
  EXPECT_TRUE(stats.sources[0].given_up);
  ASSERT_EQ(stats.fallbacks.size(), 1U);
  EXPECT_NE(stats.fallbacks[0].find("double://bucket is given up"), std::string::npos);
}

TEST_F(Mirrors, when_all_die_the_load_fails_with_the_reason) {
  make({{.bytes_per_second = 80 * kMiB, .dies_after = 3},
        {.bytes_per_second = 80 * kMiB, .dies_after = 4}});
  const Checkpoint checkpoint = open();
  Load load(checkpoint, options());
  try {
    while (load.next()) {
    }
    ADD_FAILURE() << "not noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::source);
  }
}

// Gives nothing from some read on, and never says why; cancel() ends it.
class MuteEngine final : public Engine {
 public:
  MuteEngine(std::unique_ptr<Engine> inner, uint64_t after)
      : inner_(std::move(inner)), left_(after) {}
  [[nodiscard]] EngineTraits traits() const override { return inner_->traits(); }
  uint32_t open(const Blob& blob) override { return inner_->open(blob); }
  void attach(const Region& region) override { inner_->attach(region); }
  void submit(std::span<const Read> reads) override {
    for (const Read& read : reads) {
      if (left_ > 0) {
        --left_;
        inner_->submit({&read, 1});
      } else {
        kept_.push_back(read.tag);
      }
    }
  }
  size_t wait(std::span<Completion> done, Deadline deadline) override {
    if (cancelled_ && !kept_.empty()) {
      done[0] = {kept_.back(), Error(ErrorCode::cancelled, "the read was cancelled")};
      kept_.pop_back();
      return 1;
    }
    return inner_->wait(done, deadline);
  }
  void cancel() override {
    cancelled_ = true;
    inner_->cancel();
  }

 private:
  std::unique_ptr<Engine> inner_;
  uint64_t left_;
  std::vector<uint64_t> kept_;
  std::atomic<bool> cancelled_{false};
};

TEST_F(Mirrors, what_a_silent_place_owes_is_read_from_another_once) {
  make({{.bytes_per_second = 200 * kMiB}, {.bytes_per_second = 200 * kMiB}});
  LoadOptions asked = options();
  const EngineFactory plain = asked.engines;
  asked.engines = [plain](const std::string& name, const EngineOptions& given) {
    std::unique_ptr<Engine> engine = plain(name, given);
    if (given.source == 1) engine = std::make_unique<MuteEngine>(std::move(engine), 4);
    return engine;
  };
  const auto start = Clock::now();
  const LoadStats stats = load_all(std::move(asked));
  EXPECT_LT(Clock::now() - start, 25s);
  EXPECT_GT(stats.sources[0].hedges, 0U);
  EXPECT_FALSE(stats.sources[1].given_up);
}

TEST_F(Mirrors, a_small_budget_and_a_silent_place_do_not_deadlock) {
  make({{.bytes_per_second = 200 * kMiB}, {.bytes_per_second = 200 * kMiB}});
  LoadOptions asked = options();
  asked.budget = 6 * kMiB;
  const EngineFactory plain = asked.engines;
  asked.engines = [plain](const std::string& name, const EngineOptions& given) {
    std::unique_ptr<Engine> engine = plain(name, given);
    if (given.source == 1) engine = std::make_unique<MuteEngine>(std::move(engine), 2);
    return engine;
  };
  load_all(std::move(asked));
}

TEST_F(Mirrors, another_size_other_tensors_or_another_etag_is_refused_before_a_byte_is_read) {
  make({{}, {}}, kMiB);
  const auto [name, content] = *files_.begin();
  remotes_[1]->put(name, content);  // the same bytes as another generation: another ETag
  try {
    open();
    ADD_FAILURE() << "not noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data);
    EXPECT_NE(error.message().find("it is no mirror of"), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("ETag"), std::string::npos) << error.message();
  }
}

TEST_F(Mirrors, an_object_replaced_at_one_place_in_mid_load_is_an_error) {
  make({{.latency = 20ms}, {.latency = 20ms}}, 8 * kMiB);
  Load load(open(), options());
  for (const auto& [name, content] : files_) remotes_[1]->put(name, content);
  EXPECT_THROW(
      {
        while (load.next()) {
        }
      },
      Error);
}

class MirroredFolders : public testing::Test {
 protected:
  void SetUp() override {
    for (test::Folder* folder : {&first_, &second_}) {
      folder->shard("a.safetensors", "a", {3'000'000, 100, 700'001});
      folder->shard("b.safetensors", "b", {5'000'000, 1});
    }
  }
  [[nodiscard]] Checkpoint open() const {
    return Checkpoint::open_mirrored({first_.path(), second_.path()});
  }
  test::Folder first_;
  test::Folder second_;
};

TEST_F(MirroredFolders, local_folders_are_read_together) {
  Load load(open(), {});
  std::map<std::string, test::Bytes> loaded;
  while (auto tensor = load.next()) {
    loaded[tensor->name] = {tensor->memory.data, tensor->memory.data + tensor->memory.size};
  }
  EXPECT_EQ(loaded, first_.expected);
  const LoadStats stats = load.stats();
  EXPECT_EQ(stats.sources.size(), 2U);
  EXPECT_NE(stats.why.find("several places on one queue"), std::string::npos) << stats.why;
}

TEST_F(MirroredFolders, other_bytes_in_the_same_shape_are_refused) {
  const std::string path = second_.path() + "/b.safetensors";
  const Fd fd(::open(path.c_str(), O_RDWR));
  ASSERT_EQ(
      ::pwrite(fd.get(), "another", 7, static_cast<off_t>(std::filesystem::file_size(path)) - 9),
      7);
  try {
    [[maybe_unused]] const Checkpoint opened = open();
    ADD_FAILURE() << "not noticed";
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("bytes of " + path + " are others"), std::string::npos)
        << error.message();
  }
}

TEST_F(MirroredFolders, a_place_that_is_not_there_is_left_out_and_said_so) {
  const Checkpoint checkpoint =
      Checkpoint::open_mirrored({"/nowhere/at/all", first_.path(), second_.path()});
  EXPECT_EQ(checkpoint.uri(), first_.path());
  EXPECT_EQ(checkpoint.mirrors().size(), 1U);
  Load load(checkpoint, {});
  ASSERT_EQ(load.stats().fallbacks.size(), 1U);
  EXPECT_NE(load.stats().fallbacks[0].find("/nowhere"), std::string::npos);
  EXPECT_THROW(Checkpoint::open_mirrored({"/nowhere/a", "/nowhere/b"}), Error);
}

}  // namespace
}  // namespace inrush
