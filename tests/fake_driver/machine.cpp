#include "tests/fake_driver/machine.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>

#include "tests/fake_driver/files.h"

namespace fake {
namespace {

uint64_t hash_of(const Rows& rows) {
  uint64_t hash = 1469598103934665603ULL;
  for (uint64_t row = 0; row < rows.rows; ++row) {
    const std::string_view bytes(
        reinterpret_cast<const char*>(rows.source + row * rows.source_pitch), rows.row_size);
    hash = (hash ^ std::hash<std::string_view>{}(bytes)) * 1099511628211ULL;
  }
  return hash;
}

void sleep_us(int64_t time) {
  if (time > 0) std::this_thread::sleep_for(std::chrono::microseconds(time));
}

uint64_t extent(uint64_t rows, uint64_t pitch, uint64_t row_size) {
  return (rows - 1) * pitch + row_size;
}

constexpr unsigned kReadOnly = 8;

// Reads memory that may have gone, as when a file behind it shrank.
bool read_safely(std::byte* memory, std::vector<std::byte>& bytes) {
  const iovec here{bytes.data(), bytes.size()};
  const iovec there{memory, bytes.size()};
  const ssize_t count = ::process_vm_readv(::getpid(), &here, 1, &there, 1, 0);
  if (count < 0 && errno != EFAULT) std::memcpy(bytes.data(), memory, bytes.size());  // forbidden
  return count == static_cast<ssize_t>(bytes.size()) || (count < 0 && errno != EFAULT);
}

// Pages that a driver has to bring in before it can pin them.
int64_t absent_pages(std::byte* memory, uint64_t size) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t before = reinterpret_cast<uint64_t>(memory) % page;
  std::vector<unsigned char> present((before + size + page - 1) / page);
  if (::mincore(memory - before, before + size, present.data()) != 0) return 0;
  return std::count_if(present.begin(), present.end(), [](auto one) { return (one & 1) == 0; });
}

bool is_writable(std::byte* memory) {
  std::byte first{};
  const iovec here{&first, 1};
  const iovec there{memory, 1};
  if (::process_vm_readv(::getpid(), &here, 1, &there, 1, 0) != 1) return errno != EFAULT;
  return ::process_vm_writev(::getpid(), &here, 1, &there, 1, 0) == 1 || errno != EFAULT;
}

}  // namespace

Machine& machine() {
  static auto* const the_machine = new Machine;  // outlives every thread of the process
  return *the_machine;
}

Machine::Machine() { clear(); }

void Machine::clear() {
  settings_ = {{"devices", 2},       {"cuda_version", 12080}, {"hip_version", 60241000},
               {"memory", 1 << 30},  {"integrated", 0},       {"numa_node", 0},
               {"copy_delay_us", 0}, {"lost_after", -1},      {"nvidia_fs", 1},
               {"compatible", 1},    {"parameters", 1},       {"read_only", 0},
               {"forced", 0},        {"any_pitch", 0}};
  instant_ = false;
  counts_.clear();
  calls_ = 0;
  fails_after_ = -1;
  blames_.clear();
  retained_.clear();
  settled_.clear();
  touched_ = 0;
  host_.clear();
}

void Machine::reset() {
  std::unique_lock lock(mutex_);
  const std::set<Stream*> streams = streams_;
  lock.unlock();
  for (Stream* stream : streams) destroy(stream);
  lock.lock();
  defaults_.clear();
  for (Event* event : events_) delete event;
  events_.clear();
  for (auto& [address, one] : allocations_) {
    ::munmap(reinterpret_cast<void*>(address), one.mapped);
    if (reinterpret_cast<uint64_t>(one.alias) != address) ::munmap(one.alias, one.mapped);
  }
  allocations_.clear();
  pinned_.clear();
  reading_.clear();
  files().reset();
  clear();
}

void Machine::set(const std::string& what, int64_t value) {
  const std::lock_guard lock(mutex_);
  settings_[what] = value;
  if (what == "instant") instant_ = value != 0;
  if (what == "lost_after" && value >= 0) settings_[what] = calls_ + value;
}

int64_t Machine::setting(const std::string& what) {
  const std::lock_guard lock(mutex_);
  return settings_[what];
}

void Machine::fail(const char* call, int64_t after, Result result) {
  const std::lock_guard lock(mutex_);
  failing_ = call == nullptr ? "" : call;
  fails_after_ = after;
  failure_ = result;
}

int64_t Machine::count(const char* call) {
  const std::lock_guard lock(mutex_);
  return call == nullptr ? calls_ : counts_[call];
}

Result Machine::enter(const char* call) {
  if (instant_) return kOk;
  const std::lock_guard lock(mutex_);
  ++calls_;
  ++counts_[call];
  const int64_t lost = settings_["lost_after"];
  if (lost >= 0 && calls_ > lost) return kLost;
  if (fails_after_ < 0 || (!failing_.empty() && failing_ != call)) return kOk;
  return fails_after_-- == 0 ? failure_ : kOk;
}

void Machine::blame(const std::string& what) { blames_.insert(what); }

uint64_t Machine::touched() {
  const std::lock_guard lock(mutex_);
  return touched_;
}

void Machine::touch(int device) {
  const std::lock_guard lock(mutex_);
  touched_ |= 1ULL << static_cast<unsigned>(device);
}

std::string Machine::report() {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const std::string& blame : blames_) text += blame + "\n";
  const auto left = [&](size_t count, const char* what) {
    if (count > 0) text += std::to_string(count) + " " + what + " not given back\n";
  };
  left(allocations_.size(), "allocations");
  left(pinned_.size(), "pinned pieces of memory");
  left(static_cast<size_t>(std::count_if(streams_.begin(), streams_.end(),
                                         [](const Stream* one) { return !one->consumers; })),
       "streams");
  left(events_.size(), "events");
  size_t contexts = 0;
  for (const auto& [device, count] : retained_) {
    contexts += static_cast<size_t>(std::max(count - settled_[device], 0));
  }
  left(contexts, "contexts");
  return text + files().report();
}

Result Machine::retain(int device, int change) {
  const std::lock_guard lock(mutex_);
  touched_ |= 1ULL << static_cast<unsigned>(device);
  if (retained_[device] + change < 0) return kNoneEntered;
  retained_[device] += change;
  if (retained_[device] == 0 && settled_[device] > 0) {
    blame("a context went that cuFile has something in");
  }
  return kOk;
}

void Machine::settle_in(int device) {
  const std::lock_guard lock(mutex_);
  ++settled_[device];
}

Result Machine::allocate(int device, uint64_t* address, uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (size == 0) return kInvalidValue;
  uint64_t used = size;
  for (const auto& [at, one] : allocations_) used += one.device == device ? one.size : 0;
  if (used > static_cast<uint64_t>(settings_["memory"])) return kOutOfMemory;
  Allocation one;
  one.size = size;
  one.mapped = (size + 4095) / 4096 * 4096;
  one.device = device;
  const int fd = ::memfd_create("fake device memory", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(one.mapped)) != 0) return kOutOfMemory;
  const bool shared = settings_["integrated"] != 0 || settings_["touchable"] != 0;
  constexpr int kAccess = PROT_READ | PROT_WRITE;
  void* alias = ::mmap(nullptr, one.mapped, kAccess, MAP_SHARED, fd, 0);
  void* own = shared ? alias : ::mmap(nullptr, one.mapped, PROT_NONE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (alias == MAP_FAILED || own == MAP_FAILED) return kOutOfMemory;
  one.alias = static_cast<std::byte*>(alias);
  *address = reinterpret_cast<uint64_t>(own);
  allocations_[*address] = one;
  return kOk;
}

Result Machine::free(uint64_t address) {
  std::unique_lock lock(mutex_);
  const auto found = allocations_.find(address);
  if (found == allocations_.end()) {
    blame("memory was freed that was not allocated");
    return kInvalidValue;
  }
  // As on a GPU it waits for everything.
  changed_.wait(lock, [&] {
    return std::all_of(streams_.begin(), streams_.end(),
                       [](const Stream* one) { return one->done == one->enqueued; });
  });
  const Allocation one = found->second;
  if (files().holds(address, one.size)) blame("memory was freed that is registered with cuFile");
  allocations_.erase(found);
  ::munmap(reinterpret_cast<void*>(address), one.mapped);
  if (reinterpret_cast<uint64_t>(one.alias) != address) ::munmap(one.alias, one.mapped);
  return kOk;
}

void Machine::room(int device, uint64_t* free, uint64_t* total) {
  const std::lock_guard lock(mutex_);
  *total = static_cast<uint64_t>(settings_["memory"]);
  *free = *total;
  for (const auto& [at, one] : allocations_) *free -= one.device == device ? one.size : 0;
}

Result Machine::pin(void* memory, uint64_t size, unsigned flags) {
  auto* const begin = static_cast<std::byte*>(memory);
  const bool read_only = (flags & kReadOnly) != 0;
  Pinned pinned{size, {}};
  if (read_only && setting("read_only") == 0) return kNotSupported;
  const int64_t absent = read_only || instant_ ? 0 : absent_pages(begin, size);
  if (size == 0 || (!read_only && !is_writable(begin))) return kInvalidValue;
  if (read_only && !instant_) {
    pinned.pages.resize(size);
    if (!read_safely(begin, pinned.pages)) return kInvalidValue;
  }
  const std::lock_guard lock(mutex_);
  counts_["absent pages"] += absent;
  const auto next = pinned_.lower_bound(begin);
  const bool taken =
      (next != pinned_.end() && next->first < begin + size) ||
      (next != pinned_.begin() && begin < std::prev(next)->first + std::prev(next)->second.size);
  if (taken) return kRegistered;
  pinned_[begin] = std::move(pinned);
  return kOk;
}

Result Machine::unpin(void* memory) {
  const std::lock_guard lock(mutex_);
  const auto found = pinned_.find(static_cast<std::byte*>(memory));
  if (found == pinned_.end()) {
    blame("memory was unpinned that was not pinned");
    return kInvalidValue;
  }
  const auto reader = reading_.lower_bound(found->first);
  if (reader != reading_.end() && reader->first < found->first + found->second.size) {
    blame("memory was unpinned while a copy read it");
  }
  pinned_.erase(found);
  return kOk;
}

const std::byte* Machine::pinned_at(const std::byte* memory, uint64_t size) const {
  auto next = pinned_.upper_bound(memory);
  if (next == pinned_.begin()) return nullptr;
  --next;
  if (memory + size > next->first + next->second.size) return nullptr;
  const auto& pages = next->second.pages;
  return pages.empty() ? memory : pages.data() + (memory - next->first);
}

Allocation* Machine::allocation_at(uint64_t address, uint64_t size, uint64_t* base) {
  auto next = allocations_.upper_bound(address);
  if (next == allocations_.begin()) return nullptr;
  --next;
  if (address + size > next->first + next->second.size) return nullptr;
  *base = next->first;
  return &next->second;
}

std::byte* Machine::alias_of(uint64_t address, uint64_t size) {
  const std::lock_guard lock(mutex_);
  uint64_t base = 0;
  const Allocation* found = allocation_at(address, size, &base);
  return found == nullptr ? nullptr : found->alias + (address - base);
}

void Machine::merge(Clock& into, const Clock& from) {
  for (const auto& [stream, number] : from) into[stream] = std::max(into[stream], number);
}

// With the lock held, before the operation is enqueued.
void Machine::access(Stream* stream, uint64_t begin, uint64_t end, const char* what) {
  uint64_t base = 0;
  Allocation* one = allocation_at(begin, end - begin, &base);
  if (one == nullptr) return;
  std::erase_if(one->accesses,
                [&](const Access& past) { return host_[past.stream] >= past.number; });
  for (const Access& past : one->accesses) {
    const bool apart = past.end <= begin || end <= past.begin;
    if (apart || past.stream == stream->id || stream->clock[past.stream] >= past.number) continue;
    blame(std::string(what) + " uses memory that another stream has not done with");
  }
  one->accesses.push_back({begin, end, stream->id, stream->clock[stream->id]});
}

Result Machine::copy(const Rows& rows, Stream* stream) {
  if (instant_) return kOk;
  const uint64_t read = extent(rows.rows, rows.source_pitch, rows.row_size);
  const uint64_t written = extent(rows.rows, rows.target_pitch, rows.row_size);
  const std::lock_guard lock(mutex_);
  uint64_t base = 0;
  const Allocation* one = allocation_at(rows.target, written, &base);
  if (one == nullptr) {
    blame("a copy goes beyond one allocation");
    return kInvalidValue;
  }
  if (one->device != stream->device) blame("a copy on a stream of another device");
  Rows from = rows;
  from.source = pinned_at(rows.source, read);
  if (from.source == nullptr) {
    blame("an asynchronous copy from memory that is not pinned");
    from.source = rows.source;
  }
  const int64_t delay = settings_["copy_delay_us"];
  const uint64_t hash = hash_of(from);
  std::byte* const target = one->alias + (rows.target - base);
  ++stream->clock[stream->id];
  merge(stream->clock, host_);
  access(stream, rows.target, rows.target + written, "a copy");
  ++reading_[rows.source];
  enqueue(stream, [=, this] {
    sleep_us(delay);
    if (hash_of(from) != hash) {
      const std::lock_guard again(mutex_);
      blame("what a copy reads was overwritten before it had run");
    }
    for (uint64_t row = 0; row < rows.rows; ++row) {
      std::memcpy(target + row * rows.target_pitch, from.source + row * rows.source_pitch,
                  rows.row_size);
    }
    const std::lock_guard again(mutex_);
    if (--reading_[rows.source] == 0) reading_.erase(rows.source);
  });
  return kOk;
}

Result Machine::copy_on_device(const Rows& rows, Stream* stream) {
  const std::lock_guard lock(mutex_);
  const auto source = reinterpret_cast<uint64_t>(rows.source);
  const uint64_t read = extent(rows.rows, rows.source_pitch, rows.row_size);
  const uint64_t written = extent(rows.rows, rows.target_pitch, rows.row_size);
  uint64_t target_base = 0;
  uint64_t source_base = 0;
  const Allocation* to = allocation_at(rows.target, written, &target_base);
  const Allocation* from = allocation_at(source, read, &source_base);
  if (to == nullptr || from == nullptr) {
    blame("a copy goes beyond one allocation");
    return kInvalidValue;
  }
  std::byte* const out = to->alias + (rows.target - target_base);
  const std::byte* const in = from->alias + (source - source_base);
  const int64_t delay = settings_["copy_delay_us"];
  ++stream->clock[stream->id];
  merge(stream->clock, host_);
  access(stream, rows.target, rows.target + written, "a copy on the device");
  access(stream, source, source + read, "a copy on the device");
  enqueue(stream, [=] {
    sleep_us(delay);
    for (uint64_t row = 0; row < rows.rows; ++row) {
      std::memcpy(out + row * rows.target_pitch, in + row * rows.source_pitch, rows.row_size);
    }
  });
  return kOk;
}

std::byte* Machine::written_by_storage(uint64_t address, uint64_t size) {
  const std::lock_guard lock(mutex_);
  uint64_t base = 0;
  const Allocation* one = allocation_at(address, size, &base);
  if (one == nullptr) {
    blame("storage writes beyond one allocation");
    return nullptr;
  }
  for (const Access& past : one->accesses) {
    const bool apart = past.end <= address || address + size <= past.begin;
    if (!apart && host_[past.stream] < past.number) {
      blame("storage writes memory that a stream has not done with");
    }
  }
  return one->alias + (address - base);
}

Result Machine::fill(uint64_t target, int value, uint64_t size, Stream* stream, int64_t delay_us) {
  const std::lock_guard lock(mutex_);
  uint64_t base = 0;
  const Allocation* one = allocation_at(target, size, &base);
  if (one == nullptr) {
    blame("memory is filled beyond one allocation");
    return kInvalidValue;
  }
  std::byte* const out = one->alias + (target - base);
  ++stream->clock[stream->id];
  merge(stream->clock, host_);
  // Nothing else is under way there, and what comes later waits for the kernel; but the host.
  const bool quiet =
      settings_["integrated"] != 0 &&
      std::all_of(one->accesses.begin(), one->accesses.end(), [&](const Access& past) {
        return past.end <= target || target + size <= past.begin ||
               host_[past.stream] >= past.number;
      });
  Rows all;
  all.source = out;
  all.row_size = size;
  const uint64_t hash = quiet ? hash_of(all) : 0;
  access(stream, target, target + size, "a kernel");
  enqueue(stream, [=, this] {
    sleep_us(delay_us);
    if (quiet && hash_of(all) != hash) {
      const std::lock_guard again(mutex_);
      blame("the host wrote memory that a kernel still used");
    }
    std::memset(out, value, size);
  });
  return kOk;
}

}  // namespace fake
