// A Store of a few byte strings, and what all targets share.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "inrush/core/error.h"
#include "inrush/core/store.h"

namespace inrush::fuzz {

// What must hold and does not: the fuzzer keeps the input.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

class MemoryStore final : public Store {
 public:
  // Behind each file's bytes lie `zeros` more that take no memory.
  explicit MemoryStore(std::map<std::string, std::string> files, uint64_t zeros = 0)
      : files_(std::move(files)), zeros_(zeros) {}

  [[nodiscard]] std::string uri() const override { return "memory"; }

  std::vector<std::string> list() override {
    std::vector<std::string> names;
    for (const auto& [name, bytes] : files_) names.push_back(name);
    return names;
  }

  Blob open(const std::string& name) override {
    const auto at = files_.find(name);
    if (at == files_.end()) throw Error(ErrorCode::source, "open: no such entry");
    Blob blob;
    blob.name = name;
    blob.size = at->second.size() + zeros_;
    return blob;
  }

  Identity identity(const Blob& blob) override { return blob.identity; }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    const std::string& bytes = files_.at(blob.name);
    require(target.size() <= blob.size && offset <= blob.size - target.size(),
            "reads stay inside the file");
    if (target.empty()) return;
    std::memset(target.data(), 0, target.size());
    if (offset >= bytes.size()) return;
    const size_t count = std::min<uint64_t>(target.size(), bytes.size() - offset);
    std::memcpy(target.data(), bytes.data() + offset, count);
  }

 private:
  std::map<std::string, std::string> files_;
  uint64_t zeros_;
};

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace inrush::fuzz
