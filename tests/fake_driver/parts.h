// What the fake machine is made of: memory, streams, events, and who did what with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <thread>
#include <vector>

namespace fake {

using Result = int;
constexpr Result kOk = 0;
constexpr Result kInvalidValue = 1;
constexpr Result kOutOfMemory = 2;
constexpr Result kNoDevice = 100;
constexpr Result kInvalidDevice = 101;
constexpr Result kNoneEntered = 201;
constexpr Result kInvalidHandle = 400;
constexpr Result kNotReady = 600, kRegistered = 712, kLost = 719;
constexpr Result kNotSupported = 801;

// What is known to have happened before: for each stream the number of its last operation.
using Clock = std::map<uint64_t, uint64_t>;

// Bytes that an operation of a stream writes.
struct Access {
  uint64_t begin;
  uint64_t end;
  uint64_t stream;
  uint64_t number;
};

struct Allocation {
  uint64_t size = 0;
  uint64_t mapped = 0;
  int device = 0;
  std::byte* alias = nullptr;  // where the fake itself touches it
  std::vector<Access> accesses;
};

// Memory of the host that is registered.
struct Pinned {
  uint64_t size = 0;
  // Of what may only be read: its pages, which stay as they are whatever becomes of the file.
  std::vector<std::byte> pages;
};

struct Event {
  int device = 0;
  uint64_t recorded = 0;         // how often
  std::set<uint64_t> pending{};  // of these, by several streams in any order
  Clock clock;
  bool consumers = false;
};

struct Stream {
  uint64_t id = 0;
  int device = 0;
  bool consumers = false;
  Clock clock;
  std::deque<std::function<void()>> operations;
  uint64_t enqueued = 0;
  uint64_t done = 0;
  bool closing = false;
  std::thread thread;
};

struct Rows {
  uint64_t target = 0;
  const std::byte* source = nullptr;
  uint64_t row_size = 0;
  uint64_t rows = 1;
  uint64_t target_pitch = 0;
  uint64_t source_pitch = 0;
};

}  // namespace fake
