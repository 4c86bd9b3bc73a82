#include "inrush/load/decoding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace inrush {
namespace {

constexpr uint64_t kChunk = 1 << 20;
constexpr auto kPatience = std::chrono::seconds(20);

// Counts what it sees; its first chunk waits until a second thread is there, for a while.
class Counting final : public Decoder {
 public:
  Counting(bool concurrent, std::vector<std::atomic<int>>& seen, std::atomic<int>& most)
      : concurrent_(concurrent), seen_(seen), most_(most) {}

  [[nodiscard]] DecoderTraits traits() const override {
    return {.chunk_size = kChunk,
            .order = DecodeOrder::any_order,
            .in_place = true,
            .concurrent = concurrent_};
  }
  void update(uint64_t offset, std::span<std::byte> data) override {
    const int now = ++inside_;
    if (now > most_) most_ = now;
    for (uint64_t at = offset; at < offset + data.size(); at += kChunk) ++seen_[at / kChunk];
    std::unique_lock lock(mutex_);
    if (now > 1) met_ = true;
    changed_.notify_all();
    if (concurrent_) changed_.wait_for(lock, kPatience, [this] { return met_; });
    --inside_;
  }
  std::string finish() override { return inside_ == 0 ? "done" : "early"; }

 private:
  const bool concurrent_;
  std::vector<std::atomic<int>>& seen_;
  std::atomic<int>& most_;
  std::atomic<int> inside_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool met_ = false;
};

int most_threads_at_once(bool concurrent) {
  constexpr uint64_t kChunks = 40;
  std::vector<std::byte> data(kChunks * kChunk - 5);
  std::vector<std::atomic<int>> seen(kChunks);
  std::atomic<int> most = 0;
  std::promise<std::string> digest;
  {
    Decoding decoding(4, {[&](uint32_t, std::string text) { digest.set_value(std::move(text)); },
                          [](const Error& error) { FAIL() << error.what(); }});
    decoding.add(7, std::make_unique<Counting>(concurrent, seen, most), data.size());
    // The middle first, cut within chunks.
    const std::vector<uint64_t> cuts{0, 3 * kChunk + 17, 20 * kChunk + 1, data.size()};
    for (const size_t i : {1U, 0U, 2U}) {
      decoding.arrived(7, data.data(), cuts[i], cuts[i + 1] - cuts[i], false);
    }
    auto future = digest.get_future();
    EXPECT_EQ(future.wait_for(kPatience * 2), std::future_status::ready);
    EXPECT_EQ(future.get(), "done");
  }
  for (const auto& count : seen) EXPECT_EQ(count, 1);
  return most;
}

TEST(Decoding, a_large_tensor_is_decoded_by_several_threads) {
  EXPECT_GE(most_threads_at_once(true), 2);
}

TEST(Decoding, a_decoder_that_is_not_concurrent_is_used_by_one_thread_at_a_time) {
  EXPECT_EQ(most_threads_at_once(false), 1);
}

// Says which threads used it.
class Threads final : public Decoder {
 public:
  Threads(bool in_passing, std::vector<std::thread::id>& seen)
      : in_passing_(in_passing), seen_(seen) {}

  [[nodiscard]] DecoderTraits traits() const override {
    return {.chunk_size = 1,
            .order = DecodeOrder::any_order,
            .in_place = false,
            .concurrent = true,
            .in_passing = in_passing_};
  }
  void update(uint64_t, std::span<std::byte> data) override {
    const std::lock_guard lock(mutex_);
    seen_.insert(seen_.end(), data.size(), std::this_thread::get_id());
  }
  std::string finish() override { return "done"; }

 private:
  const bool in_passing_;
  std::mutex mutex_;
  std::vector<std::thread::id>& seen_;
};

// How many of 300 bytes, of which the middle hundred is not cached, this thread decodes itself.
ptrdiff_t decoded_here(bool in_passing) {
  std::vector<std::byte> data(300);
  std::vector<std::thread::id> seen;
  std::promise<void> through;
  {
    Decoding decoding(2, {[&](uint32_t, const std::string&) { through.set_value(); },
                          [](const Error& error) { FAIL() << error.what(); }});
    decoding.add(1, std::make_unique<Threads>(in_passing, seen), data.size());
    decoding.arrived(1, data.data(), 200, 100, true);
    decoding.arrived(1, data.data(), 0, 100, true);
    decoding.arrived(1, data.data(), 100, 100, false);
    EXPECT_EQ(through.get_future().wait_for(kPatience), std::future_status::ready);
  }
  EXPECT_EQ(seen.size(), data.size());
  return std::count(seen.begin(), seen.end(), std::this_thread::get_id());
}

TEST(Decoding, what_was_just_copied_is_decoded_in_passing_where_that_costs_little) {
  EXPECT_EQ(decoded_here(true), 200);
  EXPECT_EQ(decoded_here(false), 0);
}

}  // namespace
}  // namespace inrush
