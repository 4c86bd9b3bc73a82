// The machine behind the fake driver: devices, memory, streams, events, and the ledger of all that.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "tests/fake_driver/parts.h"

namespace fake {

class Machine {
 public:
  Machine();

  void reset();
  void set(const std::string& what, int64_t value);
  void fail(const char* call, int64_t after, Result result);
  int64_t count(const char* call);
  std::string report();
  [[nodiscard]] int64_t setting(const std::string& what);
  uint64_t touched();
  void touch(int device);
  std::byte* alias_of(uint64_t address, uint64_t size);

  // What every function of the driver asks first: what it returns, unless that is kOk.
  Result enter(const char* call);

  Result allocate(int device, uint64_t* address, uint64_t size);
  Result free(uint64_t address);
  Result pin(void* memory, uint64_t size, unsigned flags);
  Result unpin(void* memory);
  void room(int device, uint64_t* free, uint64_t* total);

  Stream* make_stream(int device, bool consumers);
  Result destroy(Stream* stream);
  Event* make_event(int device);
  Result destroy(Event* event);
  // nullptr is the device's default stream.
  Stream* stream_of(Stream* stream, int device);

  Result copy(const Rows& rows, Stream* stream);
  Result copy_on_device(const Rows& rows, Stream* stream);
  Result fill(uint64_t target, int value, uint64_t size, Stream* stream, int64_t delay_us);
  Result record(Event* event, Stream* stream);
  Result wait(Stream* stream, Event* event);
  Result query(Event* event);
  Result synchronize(Event* event);
  Result synchronize(Stream* stream);
  Result retain(int device, int change);
  // cuFile leaves something in the device's context: it has to be held from now on.
  void settle_in(int device);
  // Storage is about to write there: where this thread may do it; nullptr: nowhere.
  std::byte* written_by_storage(uint64_t address, uint64_t size);

 private:
  void clear();
  void blame(const std::string& what);
  void run(Stream* stream);
  void enqueue(Stream* stream, std::function<void()> operation);
  void access(Stream* stream, uint64_t begin, uint64_t end, const char* what);
  Allocation* allocation_at(uint64_t address, uint64_t size, uint64_t* base);
  // Where registered memory can be read; nullptr: it is not registered.
  [[nodiscard]] const std::byte* pinned_at(const std::byte* memory, uint64_t size) const;
  [[nodiscard]] bool is_known(const Event* event) const;
  static void merge(Clock& into, const Clock& from);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int64_t> settings_;
  std::atomic<bool> instant_{false};
  std::map<std::string, int64_t> counts_;
  int64_t calls_ = 0;
  std::string failing_;
  int64_t fails_after_ = -1;
  Result failure_ = 0;
  std::set<std::string> blames_;
  std::map<uint64_t, Allocation> allocations_;
  std::map<const std::byte*, Pinned> pinned_;
  std::map<const std::byte*, int> reading_;  // pinned memory that copies under way read
  std::set<Stream*> streams_;
  std::set<Event*> events_;
  std::map<int, Stream*> defaults_;
  std::map<int, int> retained_;
  std::map<int, int> settled_;  // how often
  uint64_t touched_ = 0;
  uint64_t next_stream_ = 1;
  Clock host_;  // what the host knows to be done
};

Machine& machine();

}  // namespace fake
