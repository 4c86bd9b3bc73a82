#include "inrush/view.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "inrush/base/align.h"
#include "inrush/core/error.h"
#include "tests/load/fixture.h"

namespace inrush {
namespace {

using test::Folder;

bool holds(const Memory& memory, const test::Bytes& bytes) {
  return memory.size == bytes.size() &&
         (bytes.empty() || std::memcmp(memory.data, bytes.data(), bytes.size()) == 0);
}

TEST(View, gives_tensors_in_any_order_cold_and_warm) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {3, 20 * kMiB + 17, 0, 4096, 70000});
  folder.shard("b.safetensors", "b.", {2 * kMiB, 123457});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  for (const bool cold : {true, false}) {
    if (cold) folder.make_cold();
    View view(checkpoint);
    for (const char* name : {"b.1", "a.1", "a.0", "a.4", "b.0", "a.2", "a.3"}) {
      const auto memory = view.tensor(*checkpoint.index().find(name));
      ASSERT_TRUE(memory) << name;
      EXPECT_TRUE(holds(*memory, folder.expected[name])) << name;
    }
  }
}

TEST(View, serves_several_threads_at_once) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(40, kMiB + 3));
  folder.make_cold();
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  View view(checkpoint);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = t; i < 40; i += 4) {
        const std::string name = "a." + std::to_string(i);
        const auto memory = view.tensor(*checkpoint.index().find(name));
        if (memory && holds(*memory, folder.expected[name])) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 40);
}

TEST(View, what_it_gave_outlives_it) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {3 * kMiB, 5});
  std::optional<Memory> memory;
  {
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    View view(checkpoint);
    memory = view.tensor(*checkpoint.index().find("a.0"));
  }
  ASSERT_TRUE(memory);
  EXPECT_TRUE(holds(*memory, folder.expected["a.0"]));
}

TEST(View, a_file_that_shrank_is_an_error_before_its_pages_are_handed_over) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {3 * kMiB, kMiB});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  View view(checkpoint);
  ASSERT_TRUE(view.tensor(*checkpoint.index().find("a.0")));
  std::filesystem::resize_file(folder.path() + "/a.safetensors", 1000);
  EXPECT_THROW(view.tensor(*checkpoint.index().find("a.1")), Error);
}

TEST(View, a_file_that_is_replaced_is_still_the_one_that_was_opened) {
  Folder folder;
  folder.shard("a.safetensors", "a.", {3 * kMiB, kMiB});
  const auto first = folder.expected;
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  View view(checkpoint);
  ASSERT_TRUE(view.tensor(*checkpoint.index().find("a.0")));
  Folder other;
  other.shard("a.safetensors", "a.", {3 * kMiB, kMiB});
  const std::string path = folder.path() + "/a.safetensors";
  std::filesystem::copy_file(other.path() + "/a.safetensors", path + ".new");
  std::filesystem::rename(path + ".new", path);
  const auto memory = view.tensor(*checkpoint.index().find("a.1"));
  ASSERT_TRUE(memory);
  EXPECT_TRUE(holds(*memory, first.at("a.1")));
}

TEST(View, works_in_a_child_after_a_fork) {
  Folder folder;
  folder.shard("a.safetensors", "a.", std::vector<size_t>(30, kMiB));
  folder.make_cold();
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  View view(checkpoint);
  ASSERT_TRUE(view.tensor(*checkpoint.index().find("a.0")));
  const pid_t child = ::fork();
  if (child == 0) {
    const auto memory = view.tensor(*checkpoint.index().find("a.29"));
    ::_exit(memory && holds(*memory, folder.expected["a.29"]) ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace inrush
