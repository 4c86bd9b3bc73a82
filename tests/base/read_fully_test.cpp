// The arithmetic of resumed reads, as a table of what the kernel answers, and the loop over pread.
#include "inrush/base/read_fully.h"
#include "inrush/base/fd.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <vector>

namespace inrush {
namespace {

using State = ReadProgress::State;

struct Step {
  uint64_t offset;  // what shall be asked for
  uint64_t size;
  int64_t answer;
  State state;
};

class ReadProgressTest : public ::testing::Test {
 protected:
  // Runs through the steps for a read of [offset, +size) and returns the progress afterwards.
  ReadProgress run(const Read& read, const FileShape& shape, const std::vector<Step>& steps) {
    ReadProgress progress(read, shape);
    for (size_t i = 0; i < steps.size(); ++i) {
      const auto part = progress.next();
      EXPECT_EQ(part.offset, steps[i].offset) << "step " << i;
      EXPECT_EQ(part.size, steps[i].size) << "step " << i;
      EXPECT_EQ(progress.took(steps[i].answer), steps[i].state) << "step " << i;
    }
    return progress;
  }

  Read read(uint64_t offset, uint64_t size, uint64_t required) {
    return {.tag = 0,
            .file = 0,
            .offset = offset,
            .size = size,
            .required = required,
            .target = memory_.data()};
  }

  alignas(4096) std::array<std::byte, 65536> memory_{};
};

TEST_F(ReadProgressTest, a_whole_answer_is_the_end) {
  run(read(100, 50, 50), {.size = 1000}, {{100, 50, 50, State::done}});
}

TEST_F(ReadProgressTest, short_counts_advance_offset_and_target_alike) {
  ReadProgress progress(read(100, 50, 50), {.size = 1000});
  EXPECT_EQ(progress.next().target, memory_.data());
  EXPECT_EQ(progress.took(20), State::more);
  EXPECT_EQ(progress.next().target, memory_.data() + 20);
  EXPECT_EQ(progress.next().offset, 120U);
  EXPECT_EQ(progress.next().size, 30U);
  EXPECT_EQ(progress.took(29), State::more);
  EXPECT_EQ(progress.next().offset, 149U);
  EXPECT_EQ(progress.took(1), State::done);
}

TEST_F(ReadProgressTest, interruptions_are_asked_again) {
  run(read(0, 50, 50), {.size = 50},
      {{0, 50, -EINTR, State::more}, {0, 50, -EAGAIN, State::more}, {0, 50, 50, State::done}});
}

TEST_F(ReadProgressTest, interruptions_without_end_are_an_error) {
  ReadProgress progress(read(0, 50, 50), {.size = 50});
  auto state = State::more;
  int times = 0;
  while (state == State::more && ++times < 5000) {
    progress.next();
    state = progress.took(-EAGAIN);
  }
  EXPECT_EQ(state, State::failed);
  EXPECT_EQ(progress.error_number(), EAGAIN);
}

TEST_F(ReadProgressTest, an_errno_is_no_size) {
  const auto progress = run(read(0, 50, 50), {.size = 50}, {{0, 50, -EIO, State::failed}});
  EXPECT_EQ(progress.error_number(), EIO);
  EXPECT_EQ(progress.arrived(), 0U);
}

TEST_F(ReadProgressTest, the_known_end_of_the_blob_is_not_asked_about_again) {
  run(read(960, 100, 40), {.size = 1000}, {{960, 100, 40, State::done}});
}

TEST_F(ReadProgressTest, an_early_end_is_a_failure_without_errno) {
  const auto progress = run(read(0, 100, 100), {.size = 100},
                            {{0, 100, 60, State::more}, {60, 40, 0, State::failed}});
  EXPECT_EQ(progress.error_number(), 0);
  EXPECT_EQ(progress.arrived(), 60U);
}

TEST_F(ReadProgressTest, an_early_end_beyond_what_is_required_is_success) {
  run(read(0, 100, 60), {.size = 100}, {{0, 100, 60, State::more}, {60, 40, 0, State::done}});
}

TEST_F(ReadProgressTest, a_long_read_is_asked_for_in_parts) {
  run(read(0, 10'000, 10'000), {.size = 10'000, .align = 1, .most_at_once = 4096},
      {{0, 4096, 4096, State::more},
       {4096, 4096, 4096, State::more},
       {8192, 1808, 1808, State::done}});
}

TEST_F(ReadProgressTest, direct_reads_resume_at_whole_blocks) {
  // 5000 of 8192 bytes came: the block that was cut is read again, from its beginning.
  run(read(4096, 8192, 8192), {.size = 100'000, .align = 4096},
      {{4096, 8192, 5000, State::more}, {8192, 4096, 4096, State::done}});
}

TEST_F(ReadProgressTest, direct_reads_that_bring_nothing_past_the_cut_are_at_the_end) {
  const auto progress = run(read(0, 8192, 8192), {.size = 100'000, .align = 4096},
                            {{0, 8192, 5000, State::more}, {4096, 4096, 904, State::failed}});
  EXPECT_EQ(progress.arrived(), 5000U);
  EXPECT_EQ(progress.error_number(), 0);
}

TEST_F(ReadProgressTest, a_direct_tail_comes_by_a_block_of_its_own) {
  std::memset(memory_.data(), 1, memory_.size());
  ReadProgress progress(read(8192, 5000, 5000), {.size = 13192, .align = 4096});
  auto part = progress.next();
  EXPECT_EQ(part.size, 4096U);
  EXPECT_EQ(part.target, memory_.data());
  EXPECT_EQ(progress.took(4096), State::more);
  part = progress.next();
  EXPECT_EQ(part.offset, 12288U);
  EXPECT_EQ(part.size, 4096U);
  EXPECT_NE(part.target, memory_.data() + 4096);
  std::memset(part.target, 9, 4096);
  EXPECT_EQ(progress.took(904), State::done);
  EXPECT_EQ(memory_[4095], std::byte{1});
  EXPECT_EQ(memory_[4096], std::byte{9});
  EXPECT_EQ(memory_[4999], std::byte{9});
  EXPECT_EQ(memory_[5000], std::byte{1}) << "it wrote past the target";
}

TEST_F(ReadProgressTest, any_answers_that_a_kernel_may_give_yield_every_byte_once) {
  std::mt19937_64 random(3);
  std::vector<std::byte> file(30'000);
  for (auto& byte : file) byte = static_cast<std::byte>(random());
  for (int round = 0; round < 2000; ++round) {
    const uint64_t align = 1ULL << (random() % 13);
    const uint64_t offset = random() % file.size() / align * align;
    uint64_t size = (1 + random() % 20'000 + align - 1) / align * align;
    size = random() % 2 == 0 ? size : std::min(size, file.size() - offset);
    const uint64_t required = std::min(size, file.size() - offset);
    std::memset(memory_.data(), 0, memory_.size());
    ReadProgress progress(read(offset, size, required),
                          {.size = file.size(), .align = static_cast<uint32_t>(align)});
    auto state = State::more;
    while (state == State::more) {
      const auto part = progress.next();
      ASSERT_EQ(part.offset % align, 0U);
      ASSERT_EQ(part.size % align, 0U);
      if (random() % 4 == 0) {
        state = progress.took(random() % 2 == 0 ? -EINTR : -EAGAIN);
        continue;
      }
      const uint64_t left = file.size() - std::min(file.size(), part.offset);
      // The kernel may stop at any byte but always brings one more than it had before.
      const uint64_t least = progress.arrived() + offset - part.offset + 1;
      uint64_t count = std::min(part.size, left);
      if (count > least && random() % 2 == 0) count = least + random() % (count - least);
      std::memcpy(part.target, file.data() + part.offset, count);
      state = progress.took(static_cast<int64_t>(count));
    }
    ASSERT_EQ(state, State::done) << round;
    ASSERT_EQ(std::memcmp(memory_.data(), file.data() + offset, required), 0) << round;
    ASSERT_EQ(memory_[size], std::byte{0}) << round;
  }
}

TEST(ReadFullyTest, throws_what_where_and_why) {
  char name[] = "/tmp/inrush-read-fully-XXXXXX";
  const Fd fd(::mkstemp(name));
  ::unlink(name);
  ASSERT_EQ(::write(fd.get(), "0123456789", 10), 10);
  std::array<std::byte, 6> some{};
  read_fully(fd.get(), 4, some, "m.safetensors");
  EXPECT_EQ(std::memcmp(some.data(), "456789", 6), 0);
  try {
    read_fully(fd.get(), 8, some, "m.safetensors");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data);
    EXPECT_EQ(
        error.message(),
        "read m.safetensors [8, +6): the file ends at byte 10, but bytes up to 14 are needed");
  }
  try {
    read_fully(-1, 8, some, "m.safetensors");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::source);
    EXPECT_EQ(error.message(), "read m.safetensors [8, +6): Bad file descriptor");
  }
}

TEST(ReadFullyTest, a_stop_between_two_calls_ends_it) {
  std::atomic<bool> stop{true};
  std::array<std::byte, 6> some{};
  const Read read{
      .tag = 0, .file = 0, .offset = 0, .size = 6, .required = 6, .target = some.data()};
  ReadProgress progress(read, {.size = 6});
  EXPECT_FALSE(read_fully(-1, progress, &stop));
  EXPECT_EQ(progress.error_number(), ECANCELED);
}

}  // namespace
}  // namespace inrush
