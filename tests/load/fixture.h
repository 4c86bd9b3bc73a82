// A folder of safetensors files of random bytes, written here byte by byte so that no code under
// test has a hand in what is expected.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace inrush::test {

using Bytes = std::vector<std::byte>;

inline Bytes random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

class Folder {
 public:
  explicit Folder(const std::string& parent = "/tmp") {
    std::string pattern = parent + "/inrush-test-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

  // One shard of U8 tensors of these sizes, named <prefix>0, <prefix>1, ...; `pad` spaces more in
  // its header shift the data. Remembers what each tensor must be.
  void shard(const std::string& file, const std::string& prefix, const std::vector<size_t>& sizes,
             size_t pad = 0) {
    std::string header = "{";
    Bytes data;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const std::string name = prefix + std::to_string(i);
      expected[name] = random_bytes(sizes[i], expected.size() * 7919 + sizes[i]);
      header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})",
                            i == 0 ? "" : ",", name, sizes[i], data.size(), data.size() + sizes[i]);
      data.insert(data.end(), expected[name].begin(), expected[name].end());
    }
    header += "}" + std::string(pad, ' ');
    const uint64_t length = header.size();
    std::ofstream out(path_ + "/" + file, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), sizeof length);
    out << header;
    out.write(reinterpret_cast<const char*>(data.data()),
              static_cast<std::streamsize>(data.size()));
  }

  // Drops the files' pages from the page cache.
  void make_cold() const {
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      const int fd = ::open(entry.path().c_str(), O_RDONLY);
      ::fsync(fd);
      ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
      ::close(fd);
    }
  }

  // Brings them all into it.
  void make_warm() const {
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      std::ostringstream() << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    }
  }

  std::map<std::string, Bytes> expected;

 private:
  std::string path_;
};

}  // namespace inrush::test
