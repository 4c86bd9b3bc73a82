// Whether bytes are those that a content's name promises: Git's SHA-1 of a blob, or SHA-256, as
// the Hugging Face Hub names contents. Bytes come in order. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace inrush {

class ContentDigest {
 public:
  // `name`: 64 hex digits, or 40; any other promises nothing. `size`: of the whole content.
  ContentDigest(std::string name, uint64_t size);
  ~ContentDigest();
  ContentDigest(const ContentDigest&) = delete;
  ContentDigest& operator=(const ContentDigest&) = delete;

  void add(std::span<const std::byte> bytes);

  // Nothing may be added after it: empty where they are the bytes, else what is wrong.
  [[nodiscard]] std::string why_not();

 private:
  struct State;
  std::string name_;
  std::unique_ptr<State> state_;  // null: nothing is promised
};

}  // namespace inrush
