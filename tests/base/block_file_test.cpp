#include "inrush/base/block_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <thread>

#include "inrush/base/aligned_bytes.h"
#include "tests/files.h"

namespace inrush {
namespace {

using test::Folder;
using test::random_text;

constexpr size_t kBlocksSize = 5'000'011;
constexpr size_t kPage = 64 << 10;  // no page is larger

// Random bytes as they lie in a file, at an address that is as far from a page as `shift` says.
class Laid {
 public:
  explicit Laid(size_t shift)
      : text_(random_text(kBlocksSize, 3)),
        memory_(allocate_aligned(kPage, kBlocksSize + 2 * kPage)) {
    data_ = memory_.get() + shift;
    std::memcpy(data_, text_.data(), kBlocksSize);
  }

  [[nodiscard]] std::span<const std::byte> part(size_t offset, size_t size) const {
    return {data_ + offset, size};
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
  AlignedBytes memory_;
  std::byte* data_ = nullptr;
};

class BlockFiles : public ::testing::Test {
 protected:
  [[nodiscard]] std::string path() const {
    return std::filesystem::path(folder_ / "file").string();
  }

  [[nodiscard]] Fd create() const {
    Fd fd(::open(path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(fd.get(), kBlocksSize), 0);
    return fd;
  }

  [[nodiscard]] std::string content() const {
    std::ifstream file(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // From two threads, in blocks of odd sizes in an odd order.
  static void write_all(BlockFile& file, const Laid& bytes, bool around) {
    constexpr size_t kBlock = 300'007;
    const auto half = [&](size_t parity) {
      for (size_t i = 0; i * kBlock < kBlocksSize; ++i) {
        if (i % 2 != parity) continue;
        const size_t size = std::min(kBlock, kBlocksSize - i * kBlock);
        EXPECT_EQ(file.write(i * kBlock, bytes.part(i * kBlock, size), around), 0);
        file.begin_sync(i * kBlock, size);
      }
    };
    std::thread other(half, 1);
    half(0);
    other.join();
    EXPECT_EQ(file.sync(), 0);
  }

  Folder folder_;
};

TEST_F(BlockFiles, hold_what_was_written_either_way) {
  for (const size_t shift : {0, 8}) {
    for (const bool around : {true, false}) {
      const Laid bytes(shift);
      BlockFile file(create());
      write_all(file, bytes, around);
      EXPECT_EQ(content(), bytes.text()) << shift << around;
      std::filesystem::remove(path());
    }
  }
}

TEST_F(BlockFiles, are_written_around_the_page_cache_where_memory_allows) {
  const Fd probe(::open(path().c_str(), O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600));
  if (!probe) GTEST_SKIP() << "no direct I/O in " << path();
  const Laid bytes(0);
  BlockFile file(create());
  write_all(file, bytes, true);
  EXPECT_GT(file.around(), kBlocksSize / 2);
  const Laid shifted(8);
  BlockFile other(create());
  write_all(other, shifted, true);
  EXPECT_EQ(other.around(), 0U);
  EXPECT_EQ(content(), shifted.text());
}

TEST_F(BlockFiles, say_what_is_wrong_with_the_disk) {
  const Laid bytes(0);
  BlockFile full(Fd(::open("/dev/full", O_WRONLY | O_CLOEXEC)));
  EXPECT_EQ(full.write(0, bytes.part(0, kBlocksSize), true), ENOSPC);
  EXPECT_EQ(full.write(0, bytes.part(0, kBlocksSize), false), ENOSPC);
}

}  // namespace
}  // namespace inrush
