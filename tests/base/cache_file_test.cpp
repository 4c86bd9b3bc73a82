// Copies in huggingface_hub's cache; those in a cache of our own have Python's tests.
#include "inrush/base/cache_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "inrush/base/content_digest.h"
#include "inrush/core/sha256.h"
#include "tests/files.h"

namespace inrush {
namespace {

namespace fs = std::filesystem;
using test::Folder;
using test::random_text;

constexpr size_t kSize = 3'000'000;

std::string sha256_of(const std::string& text) {
  Sha256 sum;
  sum.add(text);
  return sum.finish();
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class HubCopies : public ::testing::Test {
 protected:
  HubCopies() : text_(random_text(kSize, 7)), snapshot_(std::make_shared<HubSnapshot>()) {
    snapshot_->shown = "hf://org/name@main";
    snapshot_->commit = std::string(40, 'c');
    snapshot_->revision = "main";
    snapshot_->folder = folder_ / "models--org--name";
    snapshot_->locks = folder_ / ".locks/models--org--name";
    name("weights/model.safetensors", sha256_of(text_));
  }

  void name(const std::string& file, const std::string& etag) {
    snapshot_->files = {{file, kSize, etag, "", ""}};
    blob_.name = "hf://org/name@main/" + file;
    blob_.size = kSize;
    blob_.identity.size = kSize;
    blob_.identity.etag = etag;
  }

  [[nodiscard]] std::shared_ptr<CacheFile> open() const {
    return CacheFile::open(open_hub_folder(snapshot_), blob_);
  }

  void fill(CacheFile& file, size_t offset, size_t size) const {
    file.fill(offset, std::as_bytes(std::span(text_)).subspan(offset, size),
              std::to_string(offset));
  }

  [[nodiscard]] fs::path blob() const {
    return fs::path(snapshot_->folder) / "blobs" / blob_.identity.etag;
  }
  [[nodiscard]] fs::path pointer() const {
    return fs::path(snapshot_->folder) / "snapshots" / snapshot_->commit /
           snapshot_->files.front().name;
  }

  Folder folder_;
  std::string text_;
  std::shared_ptr<HubSnapshot> snapshot_;
  Blob blob_;
};

TEST_F(HubCopies, get_their_names_when_they_are_whole) {
  const auto file = open();
  ASSERT_TRUE(file);
  file->enter();
  fill(*file, 1'000'000, kSize - 1'000'000);
  EXPECT_EQ(file->finish(), "");
  EXPECT_FALSE(fs::exists(blob()));
  fill(*file, 0, 1'000'000);
  EXPECT_EQ(file->finish(), "");
  file->leave();
  EXPECT_EQ(text_of(pointer()), text_);
  EXPECT_EQ(fs::read_symlink(pointer()), "../../../blobs/" + blob_.identity.etag);
  EXPECT_EQ(text_of(fs::path(snapshot_->folder) / "refs/main"), snapshot_->commit);
  EXPECT_EQ(std::distance(fs::directory_iterator(blob().parent_path()), {}), 1);
}

TEST_F(HubCopies, are_gone_on_with_under_another_revision) {
  {
    const auto file = open();
    file->enter();
    fill(*file, 0, 2'000'000);
    file->leave();
  }
  snapshot_ = std::make_shared<HubSnapshot>(*snapshot_);
  snapshot_->revision = "v2";
  const auto file = open();
  EXPECT_EQ(file->missing(), kSize - 2'000'000);
  std::string back(2'000'000, '\0');
  file->read(0, std::as_writable_bytes(std::span(back)));
  EXPECT_EQ(back, text_.substr(0, back.size()));
}

TEST_F(HubCopies, with_other_bytes_are_removed) {
  const auto file = open();
  file->enter();
  text_[kSize / 2] ^= 1;
  fill(*file, 0, kSize);
  EXPECT_NE(file->finish().find("its SHA-256 is"), std::string::npos);
  file->leave();
  EXPECT_FALSE(file->covers(0, 1));
  EXPECT_TRUE(fs::is_empty(blob().parent_path()));
}

TEST_F(HubCopies, with_other_bytes_are_told_of_whenever_they_are_asked) {
  const auto file = open();
  file->enter();
  text_[kSize / 2] ^= 1;
  fill(*file, 0, kSize);
  EXPECT_NO_THROW(file->demand_right());
  EXPECT_FALSE(file->wait_compared(Clock::now() + std::chrono::milliseconds(10)));
  std::thread later([&] {
    file->finish();
    file->leave();
  });
  EXPECT_TRUE(file->wait_compared(Clock::now() + std::chrono::minutes(1)));
  later.join();
  EXPECT_THROW(file->demand_right(), Error);
}

TEST_F(HubCopies, of_small_files_have_the_digest_of_git) {
  const std::string etag = "0123456789012345678901234567890123456789";
  name("config.json", etag);
  const auto file = open();
  file->enter();
  fill(*file, 0, kSize);
  EXPECT_NE(file->finish().find("its Git SHA-1 is"), std::string::npos);
  file->leave();
  ContentDigest empty("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", 0);
  EXPECT_EQ(empty.why_not(), "");
}

TEST_F(HubCopies, are_locked_only_while_they_are_filled) {
  const auto file = open();
  const std::string path = snapshot_->locks + "/" + blob_.identity.etag + ".lock";
  file->enter();
  const Fd lock(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_NE(::flock(lock.get(), LOCK_EX | LOCK_NB), 0);
  file->leave();
  EXPECT_EQ(::flock(lock.get(), LOCK_EX | LOCK_NB), 0);
  // Who holds it now shows no blocks that could be waited for, and is left alone.
  fs::remove(blob().string() + ".inrush.ledger");
  file->enter();
  EXPECT_FALSE(file->filling());
  EXPECT_FALSE(file->filled_elsewhere());
  file->leave();
}

TEST_F(HubCopies, that_somebody_took_away_are_not_taken_for_the_next_ones) {
  const auto file = open();
  file->enter();
  fill(*file, 0, 1'000'000);
  file->leave();
  fs::remove(blob().string() + ".inrush.incomplete");
  const auto other = open();
  EXPECT_EQ(other->missing(), kSize);
  other->enter();
  EXPECT_TRUE(other->filling());
  other->leave();
  file->enter();
  EXPECT_FALSE(file->filling());
  EXPECT_EQ(file->missing(), kSize - 1'000'000);
  file->leave();
  EXPECT_EQ(open()->missing(), kSize);
}

TEST_F(HubCopies, lie_in_the_folder_whatever_the_hub_calls_them) {
  for (const char* etag : {"", "../x", ".", "a/b", "..", ".hidden"}) {
    name("model.safetensors", etag);
    EXPECT_FALSE(open()) << etag;
  }
  for (const char* file : {"../x", "a/../../x", "/x", "a//x", "."}) {
    name(file, sha256_of(text_));
    EXPECT_FALSE(open()) << file;
  }
}

}  // namespace
}  // namespace inrush
