// Decoding feeds the bytes of targets to their decoders while others are still being read, on
// threads of its own, as far as they have come. A target is decoded by one thread at a time, or by
// as many as there are if its decoder is concurrent.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "inrush/core/decoder.h"
#include "inrush/core/error.h"

namespace inrush {

class Decoding {
 public:
  // decoded(target, digest) when a target is through; failed(error) when a decoder throws. Both
  // are called on Decoding's threads, without its lock.
  struct Callbacks {
    std::function<void(uint32_t, std::string)> decoded;
    std::function<void(const Error&)> failed;
  };

  Decoding(uint32_t threads, Callbacks callbacks);
  ~Decoding();

  // Registers a target before its first bytes. Without a decoder there is no job: returns false.
  bool add(uint32_t target, std::unique_ptr<Decoder> decoder, uint64_t size);

  [[nodiscard]] bool has(uint32_t target) const;

  // Bytes [offset, offset + size) of the target now stand at data + offset. `cached`: this thread
  // has just copied them, and decodes them itself where that costs little.
  void arrived(uint32_t target, std::byte* data, uint64_t offset, uint64_t size, bool cached);

 private:
  struct Job {
    std::unique_ptr<Decoder> decoder;
    DecoderTraits traits;
    std::byte* data = nullptr;
    uint64_t size = 0;
    uint64_t decoded = 0;                  // bytes
    std::map<uint64_t, uint64_t> arrived;  // offset -> end: here, and taken by no thread yet
    size_t workers = 0;                    // threads that are at it
  };
  struct Stretch {
    uint64_t offset;
    uint64_t size;
  };

  void work();
  static std::optional<Stretch> next_stretch(const Job& job);
  static std::optional<Stretch> take_stretch(Job& job);
  [[nodiscard]] static bool takes_more(const Job& job);
  void decode_what_is_there(uint32_t target, Job& job, std::unique_lock<std::mutex>& lock);
  bool decode_some(uint32_t target, Job& job, std::unique_lock<std::mutex>& lock);

  Callbacks callbacks_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<uint32_t, Job> jobs_;
  std::deque<uint32_t> pending_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace inrush
