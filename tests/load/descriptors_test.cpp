// Loads of many files in a process that may have few more open.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <string>
#include <vector>

#include "inrush/base/fd.h"
#include "inrush/load.h"
#include "tests/load/fixture.h"

namespace inrush::test {
namespace {

constexpr int kShards = 150;

class FewDescriptors : public testing::TestWithParam<const char*> {
 protected:
  FewDescriptors() {
    ::setenv("INRUSH_PROFILE", "off", 1);
    for (int i = 0; i < kShards; ++i) {
      folder_.shard(fmt::format("m{:03}.safetensors", i), fmt::format("{}.", i), {5000, 70});
    }
    ::getrlimit(RLIMIT_NOFILE, &usual_);
    options_.choice.backend = {GetParam()};
    options_.choice.strict = true;
    options_.choice.mapping =
        std::string(GetParam()) == "MMAP" ? MappingRule::automatic : MappingRule::never;
  }
  ~FewDescriptors() override { ::setrlimit(RLIMIT_NOFILE, &usual_); }

  // From now on this process may have so many more open.
  void leave(rlim_t count) const {
    const Fd lowest = make_eventfd();
    rlimit few = usual_;
    few.rlim_cur = static_cast<rlim_t>(lowest.get()) + count;
    ::setrlimit(RLIMIT_NOFILE, &few);
  }

  Folder folder_;
  LoadOptions options_;
  rlimit usual_{};
};

TEST_P(FewDescriptors, every_file_is_loaded_by_every_lane) {
  const auto checkpoint = Checkpoint::open(folder_.path());
  for (const rlim_t more : {60, 100}) {
    leave(more);
    Load load(checkpoint, options_);
    size_t count = 0;
    const Deadline deadline = Clock::now() + std::chrono::seconds(20);
    bool late = false;
    while (const auto tensor = load.next(deadline, late)) {
      const Bytes& expected = folder_.expected.at(tensor->name);
      ASSERT_EQ(std::memcmp(tensor->memory.data, expected.data(), expected.size()), 0);
      ++count;
    }
    EXPECT_EQ(count, folder_.expected.size());
    ::setrlimit(RLIMIT_NOFILE, &usual_);
  }
}

TEST_P(FewDescriptors, too_few_are_one_error_that_says_what_to_do) {
  const auto checkpoint = Checkpoint::open(folder_.path());
  for (rlim_t more = 0; more < 12; ++more) {
    leave(more);
    try {
      Load load(checkpoint, options_);
      EXPECT_TRUE(load.wait(Clock::now() + std::chrono::seconds(20)));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::memory) << error.message();
      EXPECT_NE(error.message().find("raise the limit: ulimit -n"), std::string::npos)
          << error.message();
    }
    ::setrlimit(RLIMIT_NOFILE, &usual_);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryWay, FewDescriptors,
                         testing::Values("URING", "URING_BUFFERED", "AIO", "AIO_BUFFERED", "PREAD",
                                         "PREAD_BUFFERED", "MMAP"));

}  // namespace
}  // namespace inrush::test
