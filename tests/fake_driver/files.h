// cuFile's part of the fake: what was opened and registered with it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace fake {

// The device of the context that this thread is in; -1: it is in none.
int current_device();

class Files {
 public:
  void reset();
  std::string report();
  void blame(const std::string& what);

  // What cuFileDriverOpen returns; the last two are what its configuration says.
  int open(bool nvidia_fs, bool compatible, bool forced);
  [[nodiscard]] bool is_open();
  // Whether it reads through host memory where it can do no better.
  [[nodiscard]] bool compatible();
  // Whether it does so in any case.
  [[nodiscard]] bool forced();
  int stage(int parameter, bool value);

  void* add_file(int fd);
  void remove_file(void* file);
  int fd_of(void* file);  // -1: there is none
  int add_memory(uint64_t address, uint64_t size);
  int remove_memory(uint64_t address);
  // Whether any of this memory, or all of it, is registered.
  bool holds(uint64_t address, uint64_t size);
  bool holds_all(uint64_t base, uint64_t end);

 private:
  std::mutex mutex_;
  bool opened_ = false;
  bool compatible_ = true;
  bool forced_ = false;
  std::map<int, bool> staged_;  // by parameter
  std::map<void*, int> files_;
  std::map<uint64_t, uint64_t> memory_;
  std::set<std::string> blames_;
  uintptr_t next_ = 1;
};

Files& files();

}  // namespace fake
