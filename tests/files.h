// Folders that go with the test, files of chosen bytes in them, and safetensors files put together
// by hand, so that no code under test has a hand in what is expected.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "inrush/core/error.h"

namespace inrush::test {

inline std::string random_text(size_t size, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

inline std::string length_of(uint64_t length) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(length >> (8 * i) & 0xFF);
  return bytes;
}

// A file with this header and so many bytes of data behind it.
inline std::string safetensors_file(const std::string& json, size_t data_size, uint64_t seed = 1) {
  return length_of(json.size()) + json + random_text(data_size, seed);
}

// A file with one U8 tensor for each name, of 3 bytes.
inline std::string file_with(const std::vector<std::string>& names) {
  std::string json = "{";
  size_t offset = 0;
  for (const auto& name : names) {
    json += (offset == 0 ? "\"" : ",\"") + name +
            R"(":{"dtype":"U8","shape":[3],"data_offsets":[)" + std::to_string(offset) + "," +
            std::to_string(offset + 3) + "]}";
    offset += 3;
  }
  return safetensors_file(json + "}", offset);
}

class Folder {
 public:
  explicit Folder(const std::string& parent = std::filesystem::temp_directory_path().string()) {
    std::string pattern = parent + "/inrush-test-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp in " + parent);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  std::string write(const std::string& name, const std::string& bytes) const {
    const std::string path = *this / name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream in(*this / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  [[nodiscard]] size_t count() const {
    const std::filesystem::directory_iterator files(path_);
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }

 private:
  std::string path_;
};

// The message of the Error that `action` throws; a failure of the test if it has another code.
inline std::string message_of(ErrorCode code, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    return error.message();
  }
  ADD_FAILURE() << "no Error was thrown";
  return {};
}

inline ::testing::AssertionResult contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << '"' << text << "\" lacks \"" << part << '"';
}

}  // namespace inrush::test
