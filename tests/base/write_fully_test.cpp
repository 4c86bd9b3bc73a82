#include "inrush/base/write_fully.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "../files.h"
#include "inrush/base/fd.h"

namespace inrush::test {
namespace {

TEST(WriteFully, writes_all_of_it_in_pieces_or_at_once) {
  const Folder folder;
  const std::string bytes = random_text((1 << 20) + 77, 5);
  for (const auto write : {write_fully, write_cached}) {
    const std::string path = folder.write("a", std::string(10, 'x'));
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    EXPECT_EQ(write(fd.get(), 3, std::as_bytes(std::span(bytes))), 0);
    EXPECT_EQ(write(fd.get(), 0, {}), 0);
    EXPECT_EQ(folder.read("a"), "xxx" + bytes);
  }
}

TEST(WriteFully, says_why_it_cannot) {
  const Folder folder;
  const Fd fd(::open(folder.write("a", std::string("b")).c_str(), O_RDONLY | O_CLOEXEC));
  const std::string bytes = "bytes";
  EXPECT_EQ(write_fully(fd.get(), 0, std::as_bytes(std::span(bytes))), EBADF);
  EXPECT_EQ(write_cached(fd.get(), 0, std::as_bytes(std::span(bytes))), EBADF);
}

TEST(WriteFully, pieces_for_the_page_cache_are_whole_pages) {
  EXPECT_GE(best_cached_write(), 64U << 10);
  EXPECT_EQ(best_cached_write() % 4096, 0U);
}

}  // namespace
}  // namespace inrush::test
