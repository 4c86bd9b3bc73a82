// Engines on a filesystem that fails, or never answers: nothing hangs, and errors say why.
#include <gtest/gtest.h>

#include "tests/engines/engine_test.h"
#include "tests/engines/moody_fs.h"

// ThreadSanitizer asks for this. liburing unmaps its rings by a system call of its own, which the
// sanitizer does not see: to it, a later ring at the same address is still the one that the thread
// of an outlasted engine read.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "race:io_uring_cqe_seen\nrace:__io_uring_peek_cqe\n";
}

namespace inrush::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

size_t threads_of_process() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

class Trouble : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    if (!IsSkipped() && !fs_.reason().empty()) GTEST_SKIP() << fs_.reason();
  }

  // An engine with the file open and memory for it, while the filesystem still answers.
  void begin() {
    blob_ = open_blob(fs_.path());
    engine_ = make();
    try {
      engine_->open(blob_);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
    arena_ = target_for(*engine_, blob_);
    reads_ = shredded(engine_->traits(), blob_, arena_->data(), 128 * kKiB);
  }

  Bytes bytes_ = random_bytes(kMiB + 5, 1);
  MoodyFs fs_{bytes_};
  Blob blob_;
  std::unique_ptr<Target> arena_;  // outlives the engine, and what the engine left behind
  std::unique_ptr<Engine> engine_;
  std::vector<Read> reads_;
};

TEST_P(Trouble, a_filesystem_without_alignment_to_report_is_read_all_the_same) {
  begin();
  if (IsSkipped()) return;
  const Outcome outcome = drive(*engine_, reads_);
  for (const auto& [read, error] : outcome.failed) ADD_FAILURE() << error.what();
  EXPECT_TRUE(arena_->holds(bytes_));
}

TEST_P(Trouble, an_input_output_error_is_the_sources_and_names_the_read) {
  begin();
  if (IsSkipped()) return;
  drop_pages(blob_);  // what the trial read brought in
  fs_.set_mood(MoodyFs::Mood::failing);
  const Outcome outcome = drive(*engine_, reads_);
  ASSERT_EQ(outcome.failed.size(), reads_.size());
  for (const auto& [read, error] : outcome.failed) {
    EXPECT_EQ(error.code(), ErrorCode::source) << error.what();
    const std::string expected = "read " + blob_.name + " [" + std::to_string(read.offset) + ", +" +
                                 std::to_string(read.size) + ") via " + GetParam().engine +
                                 ": Input/output error";
    EXPECT_EQ(error.message(), expected);
  }
}

TEST_P(Trouble, reads_that_are_never_answered_hold_up_neither_cancel_nor_destructor) {
  // Through the page cache AIO reads in the caller's thread: there is no way out of that.
  if (std::string(GetParam().engine) == "aio" && !GetParam().direct) {
    GTEST_SKIP() << "buffered Linux AIO is synchronous";
  }
  // Such a lane is left behind by its load, as its thread is.
  if (GetParam().on_lane) GTEST_SKIP() << "it reads on the caller's thread";
  begin();
  if (IsSkipped()) return;
  const size_t threads_before = threads_of_process();
  drop_pages(blob_);
  fs_.set_mood(MoodyFs::Mood::hanging);
  engine_->submit(reads_);
  Completion done[16];
  EXPECT_EQ(engine_->wait(done, Clock::now() + milliseconds(100)), 0U);
  auto start = Clock::now();
  engine_->cancel();
  engine_->wait(done, Clock::now() + milliseconds(200));
  engine_.reset();
  EXPECT_LT(Clock::now() - start, seconds(10));  // 0.3 of patience; the rest is for a busy machine
  fs_.release();
  for (start = Clock::now(); threads_of_process() > threads_before;) {
    ASSERT_LT(Clock::now() - start, seconds(30)) << "threads that were let go do not end";
    std::this_thread::sleep_for(milliseconds(5));
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, Trouble, ::testing::ValuesIn(local_ways({Layer::plain})),
                         [](const auto& way) { return name_of(way.param); });

}  // namespace
}  // namespace inrush::testing
