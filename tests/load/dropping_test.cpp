// What is left in the page cache by a load that was asked to leave nothing there.
#include <gtest/gtest.h>

#include <fcntl.h>

#include <optional>
#include <string>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/cachestat.h"
#include "inrush/base/fd.h"
#include "inrush/load.h"
#include "tests/load/fixture.h"

namespace inrush::test {
namespace {

constexpr uint64_t kFew = 64 * kKiB;  // of pages: nothing that came of a tensor

class Dropped : public testing::TestWithParam<const char*> {
 protected:
  Dropped() {
    ::setenv("INRUSH_PROFILE", "off", 1);
    folder_.shard("a.safetensors", "a.", std::vector<size_t>(12, 4 * kMiB + 100'003));
    fd_ = Fd(::open((folder_.path() + "/a.safetensors").c_str(), O_RDONLY));
    size_ = static_cast<uint64_t>(::lseek(fd_.get(), 0, SEEK_END));
    options_.choice.backend = {GetParam()};
    options_.choice.page_cache = PageCache::drop;
  }

  void SetUp() override {
    folder_.make_cold();
    if (cached(0, size_) != uint64_t{0}) GTEST_SKIP() << "no page cache that cachestat tells of";
  }

  void load_all() {
    Load load(Checkpoint::open(folder_.path()), options_);
    ASSERT_TRUE(load.wait(Deadline::max()));
  }

  [[nodiscard]] std::optional<uint64_t> cached(uint64_t offset, uint64_t size) const {
    const auto pages = cached_pages(fd_.get(), offset, size);
    if (!pages) return pages;
    return *pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  }

  Folder folder_;
  Fd fd_;
  uint64_t size_ = 0;
  LoadOptions options_;
};

TEST_P(Dropped, a_cold_file_leaves_nothing_behind) {
  for (int round = 0; round < 3; ++round) {
    folder_.make_cold();
    load_all();
    EXPECT_LE(*cached(0, size_), kFew);
  }
}

TEST_P(Dropped, tensor_by_tensor_nothing_is_left_behind) {
  options_.collect = false;
  options_.budget = 16 * kMiB;
  {
    Load load(Checkpoint::open(folder_.path()), options_);
    while (auto tensor = load.next()) EXPECT_LE(*cached(0, size_), 3 * options_.budget);
  }
  EXPECT_LE(*cached(0, size_), kFew);
}

TEST_P(Dropped, pages_that_were_there_stay) {
  std::vector<char> bytes(16 * kMiB);
  const uint64_t warm = 16 * kMiB;
  ::posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_RANDOM);
  ASSERT_EQ(::pread(fd_.get(), bytes.data(), warm, warm), static_cast<ssize_t>(warm));
  load_all();
  EXPECT_EQ(*cached(warm, warm), warm);
  EXPECT_LE(*cached(0, size_), warm + 2 * 2 * kMiB + kFew);  // and the folios at either end
}

TEST_P(Dropped, a_load_that_is_cancelled_leaves_nothing_behind) {
  {
    Load load(Checkpoint::open(folder_.path()), options_);
    while (load.stats().bytes_read < 8 * kMiB) continue;
    load.cancel();
  }
  EXPECT_LE(*cached(0, size_), kFew);
}

INSTANTIATE_TEST_SUITE_P(Buffered, Dropped,
                         testing::Values("PREAD_BUFFERED", "AIO_BUFFERED", "URING_BUFFERED"));

}  // namespace
}  // namespace inrush::test
