#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <thread>

#include "../files.h"
#include "inrush/formats/formats.h"
#include "inrush/save.h"
#include "inrush/stores/stores.h"

namespace inrush::test {
namespace {

using Names = std::vector<std::string>;

// Tensors of these sizes, named by letters, over one text that goes with the process.
std::vector<SaveTensor> tensors_of(const std::vector<uint64_t>& sizes, const std::string& text) {
  std::vector<SaveTensor> tensors;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const std::string name(1, static_cast<char>('a' + i));
    tensors.push_back(
        {name, Dtype::u8, {sizes[i]}, std::as_bytes(std::span(text)).first(sizes[i])});
  }
  return tensors;
}

// Shards of `most` bytes, named x*.
ShardOptions of_at_most(uint64_t most) {
  ShardOptions options;
  options.filename_pattern = "x{suffix}.safetensors";
  options.max_shard_size = most;
  options.sync = false;
  return options;
}

Names files_in(const Folder& folder) {
  Names names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Index open_folder(const std::string& path) {
  const Place place = find_place(path);
  return read_index(*place.store);
}

TEST(SaveSharded, fills_files_in_the_order_given_and_writes_an_index) {
  const Folder folder;
  const std::string text = random_text(600);
  ShardOptions options = of_at_most(1000);
  options.metadata = {{{"by", "us"}}};
  // 600 | 600 + 200 | (1200 alone) | 600 + 200 + 200
  const std::string large = random_text(1200);
  auto tensors = tensors_of({600, 600, 200, 0, 600, 200, 200}, text);
  tensors.push_back({"z", Dtype::u8, {1200}, std::as_bytes(std::span(large))});
  const Names names = save_sharded(folder.path(), tensors, options);
  EXPECT_EQ(names, (Names{"x-00001-of-00004.safetensors", "x-00002-of-00004.safetensors",
                          "x-00003-of-00004.safetensors", "x-00004-of-00004.safetensors",
                          "x.safetensors.index.json"}));
  EXPECT_EQ(files_in(folder), names);
  const std::string index = folder.read("x.safetensors.index.json");
  EXPECT_TRUE(contains(index, "\"total_size\": 3600,\n    \"by\": \"us\""));
  EXPECT_TRUE(contains(index, "\"b\": \"x-00002-of-00004.safetensors\""));
}

TEST(SaveSharded, one_file_has_no_index_and_takes_the_metadata) {
  const Folder folder;
  const std::string text = random_text(100);
  ShardOptions options = of_at_most(1000);
  options.metadata = {{{"by", "us"}}};
  options.file_metadata = {{{"format", "pt"}}};
  const std::string place = folder / "made";
  EXPECT_EQ(save_sharded(place, tensors_of({100, 3}, text), options), Names{"x.safetensors"});
  EXPECT_TRUE(contains(folder.read("made/x.safetensors"), R"({"by":"us","format":"pt"})"));
}

TEST(SaveSharded, removes_what_an_earlier_save_left_and_nothing_else) {
  const Folder folder;
  const std::string text = random_text(100);
  for (const char* other : {"y.safetensors", "x-1.safetensors", "x-00001-of-000.safetensors"}) {
    folder.write(other, "theirs");
  }
  save_sharded(folder.path(), tensors_of({90, 90, 90}, text), of_at_most(100));
  EXPECT_EQ(folder.count(), 3U + 4U);
  save_sharded(folder.path(), tensors_of({90, 80}, text), of_at_most(100));
  EXPECT_EQ(folder.count(), 3U + 3U);
  EXPECT_FALSE(std::filesystem::exists(folder / "x-00003-of-00003.safetensors"));
  save_sharded(folder.path(), tensors_of({90}, text), of_at_most(100));
  EXPECT_EQ(folder.count(), 3U + 1U);
  save_sharded(folder.path(), tensors_of({90, 80}, text), of_at_most(100));
  EXPECT_FALSE(std::filesystem::exists(folder / "x.safetensors"));
  EXPECT_EQ(folder.count(), 3U + 3U);
}

TEST(SaveSharded, refuses_patterns_that_name_no_file_and_tensors_given_twice) {
  const Folder folder;
  const std::string text = random_text(10);
  for (const char* pattern : {"x", "a/{suffix}", "{suffix}{suffix}", "{suffix}/b", "{x}{suffix}"}) {
    ShardOptions options;
    options.filename_pattern = pattern;
    message_of(ErrorCode::usage,
               [&] { save_sharded(folder.path(), tensors_of({1}, text), options); });
  }
  auto twice = tensors_of({5, 5}, text);
  twice[1].name = "a";
  message_of(ErrorCode::usage, [&] { save_sharded(folder.path(), twice, of_at_most(5)); });
  message_of(ErrorCode::usage, [&] { save_sharded(folder.path(), twice, of_at_most(0)); });
  EXPECT_EQ(folder.count(), 0U);
}

TEST(SaveSharded, leaves_the_old_checkpoint_when_a_tensor_cannot_be_had) {
  const Folder folder;
  const std::string text = random_text(100);
  save_sharded(folder.path(), tensors_of({90, 80}, text), of_at_most(100));
  const Names before = files_in(folder);
  auto tensors = tensors_of({90, 90, 90}, text);
  tensors[2].data = {};
  tensors[2].read = [](uint64_t, std::span<std::byte>) {
    throw Error(ErrorCode::source, "read: gone");
  };
  message_of(ErrorCode::source, [&] { save_sharded(folder.path(), tensors, of_at_most(100)); });
  EXPECT_EQ(files_in(folder), before);
}

// What a folder holds once its writer was killed: the checkpoint of `first` bytes a tensor, that of
// `second`, or nothing that opens.
void expect_one_or_the_other(const std::string& folder, char first, char second) {
  Index index;
  try {
    index = open_folder(folder);
  } catch (const Error&) {
    return;
  }
  std::map<char, size_t> seen;
  for (const TensorInfo& tensor : index.tensors) ++seen[tensor.name.front()];
  EXPECT_EQ(seen.size(), 1U) << "a mixture of two checkpoints opens";
  EXPECT_TRUE(seen == (std::map<char, size_t>{{first, 3}}) ||
              seen == (std::map<char, size_t>{{second, 5}}))
      << "a part of a checkpoint opens";
}

std::vector<SaveTensor> named(char letter, size_t count, const std::string& text) {
  auto tensors = tensors_of(std::vector<uint64_t>(count, text.size()), text);
  for (SaveTensor& tensor : tensors) tensor.name.insert(0, 1, letter);
  return tensors;
}

TEST(SaveSharded, killed_at_any_moment_leaves_nothing_that_looks_whole) {
  const std::string text = random_text(200'000);
  std::mt19937_64 random(std::random_device{}());
  for (int round = 0; round < 60; ++round) {
    const Folder folder;
    const std::string place = folder / "model";
    save_sharded(place, named('o', 3, text), of_at_most(text.size()));
    const pid_t child = ::fork();
    if (child == 0) {
      for (;;) {
        save_sharded(place, named('n', 5, text), of_at_most(text.size()));
        save_sharded(place, named('o', 3, text), of_at_most(text.size()));
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    expect_one_or_the_other(place, 'o', 'n');
  }
}

}  // namespace
}  // namespace inrush::test
