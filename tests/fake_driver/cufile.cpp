// What libcufile.so.0 exports, as far as it is used. Reads are strict where cuFile would be slow:
// what is not aligned or not registered it would read into memory of its own first.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "tests/fake_driver/files.h"
#include "tests/fake_driver/machine.h"

namespace fake {

constexpr int kNotLoaded = 5001, kInvalid = 5022, kAlreadyOpen = 5026, kUnknownMemory = 5024;
constexpr int kCompatible = 1, kForced = 2;  // parameters

Files& files() {
  static auto* const the_files = new Files;
  return *the_files;
}

void Files::reset() {
  const std::lock_guard lock(mutex_);
  opened_ = false;
  staged_.clear();
  files_.clear();
  memory_.clear();
  blames_.clear();
}

std::string Files::report() {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const std::string& blame : blames_) text += blame + "\n";
  const auto left = [&](size_t count, const char* what) {
    if (count > 0) text += std::to_string(count) + " " + what + " not given back\n";
  };
  left(files_.size(), "files of cuFile");
  left(memory_.size(), "registrations with cuFile");
  return text;
}

void Files::blame(const std::string& what) {
  const std::lock_guard lock(mutex_);
  blames_.insert(what);
}

int Files::open(bool nvidia_fs, bool compatible, bool forced) {
  const std::lock_guard lock(mutex_);
  if (opened_) return kAlreadyOpen;
  compatible_ = staged_.contains(kCompatible) ? staged_[kCompatible] : compatible;
  forced_ = staged_.contains(kForced) ? staged_[kForced] : forced;
  if (!nvidia_fs && !compatible_) return kNotLoaded;
  staged_.clear();
  opened_ = true;
  return 0;
}

bool Files::is_open() {
  const std::lock_guard lock(mutex_);
  return opened_;
}

bool Files::compatible() {
  const std::lock_guard lock(mutex_);
  return compatible_;
}

bool Files::forced() {
  const std::lock_guard lock(mutex_);
  return forced_;
}

int Files::stage(int parameter, bool value) {
  const std::lock_guard lock(mutex_);
  if (opened_) return kAlreadyOpen;
  staged_[parameter] = value;
  return 0;
}

void* Files::add_file(int fd) {
  const std::lock_guard lock(mutex_);
  void* const handle = reinterpret_cast<void*>(next_++);
  files_[handle] = fd;
  return handle;
}

void Files::remove_file(void* file) {
  const std::lock_guard lock(mutex_);
  if (files_.erase(file) == 0)
    blames_.insert("a file was removed from cuFile that it does not know");
}

int Files::fd_of(void* file) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(file);
  return found == files_.end() ? -1 : found->second;
}

int Files::add_memory(uint64_t address, uint64_t size) {
  const std::lock_guard lock(mutex_);
  return memory_.emplace(address, size).second ? 0 : kInvalid;
}

int Files::remove_memory(uint64_t address) {
  const std::lock_guard lock(mutex_);
  if (memory_.erase(address) == 1) return 0;
  blames_.insert("memory was removed from cuFile that it does not know");
  return kUnknownMemory;
}

bool Files::holds(uint64_t address, uint64_t size) {
  const std::lock_guard lock(mutex_);
  for (const auto& [base, length] : memory_) {
    if (base < address + size && address < base + length) return true;
  }
  return false;
}

bool Files::holds_all(uint64_t base, uint64_t end) {
  const std::lock_guard lock(mutex_);
  const auto found = memory_.find(base);
  return found != memory_.end() && end <= found->first + found->second;
}

}  // namespace fake

namespace {

using fake::files;
using fake::machine;

struct Status {
  int error;
  int cuda;
};

struct Description {
  int type;
  union {
    int fd;
    void* handle;
  };
  const void* operations;
};

struct Properties {
  unsigned major_version, minor_version;
  size_t poll_size, largest_direct;
  unsigned supported, control;
  unsigned others[6];
};

}  // namespace

extern "C" {

Status cuFileGetVersion(int* version) {
  *version = 1150;
  return {0, 0};
}

Status cuFileSetParameterBool(int parameter, bool value) {
  const bool known = parameter == fake::kCompatible || parameter == fake::kForced;
  if (machine().setting("parameters") == 0 || !known) return {fake::kInvalid, 0};
  return {files().stage(parameter, value), 0};
}

Status cuFileGetParameterBool(int parameter, bool* value) {
  const bool known = parameter == fake::kCompatible || parameter == fake::kForced;
  if (machine().setting("parameters") == 0 || !known) return {fake::kInvalid, 0};
  *value = parameter == fake::kForced ? files().forced() : files().compatible();
  return {0, 0};
}

Status cuFileDriverOpen() {
  if (const int result = machine().enter("cuFileDriverOpen")) return {result, 0};
  return {files().open(machine().setting("nvidia_fs") != 0, machine().setting("compatible") != 0,
                       machine().setting("forced") != 0),
          0};
}

Status cuFileDriverGetProperties(Properties* properties) {
  if (const int result = machine().enter("cuFileDriverGetProperties")) return {result, 0};
  if (!files().is_open()) return {fake::kNotLoaded, 0};
  *properties = {};
  properties->control = files().compatible() ? 2 : 0;
  return {0, 0};
}

Status cuFileHandleRegister(void** handle, const Description* description) {
  if (const int result = machine().enter("cuFileHandleRegister")) return {result, 0};
  if (!files().is_open()) return {fake::kNotLoaded, 0};
  const int flags = ::fcntl(description->fd, F_GETFL);
  if (description->type != 1 || flags < 0 || (flags & O_DIRECT) == 0) return {5020, 0};
  *handle = files().add_file(description->fd);
  return {0, 0};
}

void cuFileHandleDeregister(void* handle) {
  machine().enter("cuFileHandleDeregister");
  files().remove_file(handle);
}

Status cuFileBufRegister(const void* memory, size_t size, int) {
  if (const int result = machine().enter("cuFileBufRegister")) return {result, 0};
  if (fake::current_device() < 0) return {5011, fake::kNoneEntered};
  const auto address = reinterpret_cast<uint64_t>(memory);
  if (machine().alias_of(address, size) == nullptr) return {5012, 0};
  const int result = files().add_memory(address, size);
  if (result == 0) machine().settle_in(fake::current_device());
  return {result, 0};
}

Status cuFileBufDeregister(const void* memory) {
  machine().enter("cuFileBufDeregister");
  return {files().remove_memory(reinterpret_cast<uint64_t>(memory)), 0};
}

ssize_t cuFileRead(void* handle, void* memory, size_t size, off_t offset, off_t memory_offset) {
  if (const int result = machine().enter("cuFileRead")) {
    if (result > 5000 || result == fake::kLost) return -(result == fake::kLost ? 5011 : result);
    errno = result;
    return -1;
  }
  if (fake::current_device() < 0) return -5047;
  const int fd = files().fd_of(handle);
  if (fd < 0) return -5027;
  const auto base = reinterpret_cast<uint64_t>(memory);
  const uint64_t target = base + static_cast<uint64_t>(memory_offset);
  if (!files().holds_all(base, target + size)) {
    files().blame("cuFile reads into memory that is not registered");
  }
  constexpr uint64_t kAlign = 4096;
  if (target % kAlign != 0 || static_cast<uint64_t>(offset) % kAlign != 0 || size % kAlign != 0) {
    files().blame("cuFile reads what is not aligned");
  }
  std::byte* const out = machine().written_by_storage(target, size);
  if (out == nullptr) return -5014;
  ssize_t count = 0;
  while (static_cast<size_t>(count) < size) {
    const ssize_t more =
        ::pread(fd, out + count, size - static_cast<size_t>(count), offset + count);
    if (more < 0) return -1;
    if (more == 0) break;
    count += more;
  }
  return count;
}

}  // extern "C"
