#include "inrush/view.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "inrush/base/align.h"
#include "inrush/base/backing.h"
#include "inrush/base/fd.h"
#include "inrush/base/madvise.h"
#include "inrush/base/thread.h"
#include "inrush/policy/facts.h"
#include "inrush/policy/filesystem.h"

namespace inrush {
namespace {

// How far read-ahead runs before the tensor asked for last, and in what steps: enough to keep a
// fast disk busy while the caller works on a tensor, little enough to stop soon.
constexpr uint64_t kAhead = 64 * kMiB;
constexpr uint64_t kStep = 2 * kMiB;

// From this size on, faults should fetch huge pages.
constexpr uint64_t kLarge = 16 * kMiB;

// A private mapping of a file at a multiple of 2 MiB, so that huge pages of the page cache fit it.
// `ahead_kib`: what the kernel reads ahead there.
struct Mapping {
  Mapping(const Blob& blob, uint32_t ahead_kib)
      : size(blob.size), reserved(align_up(blob.size + 1, kStep)) {
    void* room = ::mmap(nullptr, reserved + kStep, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) return;
    const auto address = reinterpret_cast<uintptr_t>(room);
    auto* const start = static_cast<std::byte*>(room) + (align_up(address, kStep) - address);
    if (start != room) ::munmap(room, static_cast<size_t>(start - static_cast<std::byte*>(room)));
    const uint64_t left = address + reserved + kStep - reinterpret_cast<uintptr_t>(start);
    if (left > reserved) ::munmap(start + reserved, left - reserved);
    data = start;
    void* placed = ::mmap(start, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, blob.fd, 0);
    mapped = placed != MAP_FAILED;
    huge = mapped &&
           (size >= kLarge ? advise_huge_pages(start, size) : fetch_whole({start, size}, size));
    small = !huge && ahead_kib * kKiB < kStep;
  }
  ~Mapping() {
    if (data != nullptr) ::munmap(data, reserved);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::byte* data = nullptr;
  uint64_t size;
  uint64_t reserved;
  bool mapped = false;
  bool huge = false;   // faults fetch huge pages, or all of a small file
  bool small = false;  // readahead(2) comes first: faults fetch little, or what nothing backs
};

// Populates one stretch of one mapping at a time, ahead of whoever reads it, on a thread of its
// own.
class ReadAhead {
 public:
  ReadAhead() : thread_(start_thread("reads ahead", [this] { work(); })) {}
  ~ReadAhead() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // From `offset` on, as far as it is worth before tensor [offset, offset + size) is through.
  void want(const std::shared_ptr<Mapping>& mapping, int fd, uint64_t offset, uint64_t size) {
    const std::lock_guard lock(mutex_);
    const uint64_t begin = align_down(offset, kStep);
    // A jump begins anew there; a walk through the file goes on where it was.
    if (mapping_ != mapping || begin > wanted_ || offset + size + kAhead < done_) {
      asked_ = done_ = begin;
    }
    mapping_ = mapping;
    fd_ = fd;
    wanted_ = std::min(mapping->size, offset + size + kAhead);
    wake_.notify_one();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (done_ >= wanted_) {
        wake_.wait(lock);
        continue;
      }
      const std::shared_ptr<Mapping> mapping = mapping_;
      const int fd = fd_;
      // Small pages are asked for first, so that the disk has many requests to work on.
      asked_ = std::max(asked_, done_);
      const bool asks = mapping->small && asked_ < wanted_;
      uint64_t& at = asks ? asked_ : done_;
      const uint64_t offset = at;
      const uint64_t size = std::min(kStep, wanted_ - offset);
      at += size;
      lock.unlock();
      if (asks) {
        ::readahead(fd, static_cast<off64_t>(offset), size);
      } else {
        populate(*mapping, fd, offset, size);
      }
      lock.lock();
    }
  }

  // And finds out whether small pages are better.
  static void populate(Mapping& mapping, int fd, uint64_t offset, uint64_t size) {
    const int failed = inrush::populate(mapping.data + offset, size, mapping.small);
    if (failed == EINVAL) ::readahead(fd, static_cast<off64_t>(offset), size);
    if (!mapping.huge && failed == 0 && is_unbacked(fd, offset, size)) mapping.small = true;
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Mapping> mapping_;
  int fd_ = -1;
  uint64_t wanted_ = 0;  // read ahead up to here
  uint64_t asked_ = 0;   // asked for so far, where pages are small
  uint64_t done_ = 0;    // read ahead so far
  bool stopping_ = false;
  std::thread thread_;  // the last member: it uses all others
};

}  // namespace

class View::State {
 public:
  explicit State(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), shards_(checkpoint.index().blobs.size()) {}

  ~State() {
    if (owner_ != ::getpid()) forget();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::optional<Memory> tensor(const TensorInfo& info);

 private:
  struct Shard {
    std::shared_ptr<Mapping> mapping;
    bool refused = false;  // may not be mapped
    bool cold = false;     // read-ahead is worth it
  };

  void open_shard(uint32_t index);
  // After a fork the parent's thread is not here, and its lock may be held for ever.
  void forget() { [[maybe_unused]] const auto* left = ahead_.release(); }

  const Checkpoint checkpoint_;
  std::mutex mutex_;
  std::vector<Shard> shards_;
  std::unique_ptr<ReadAhead> ahead_;
  pid_t owner_ = 0;  // the process whose thread reads ahead
};

void View::State::open_shard(uint32_t index) {
  Shard& shard = shards_[index];
  const Blob& blob = checkpoint_.index().blobs[index];
  const FilesystemFact place = blob.fd >= 0 ? ask_filesystem(blob) : FilesystemFact{};
  std::shared_ptr<Mapping> mapping;
  // A far place is mapped only where all of it is resident: touching it asks nobody then.
  if (place.may_map || (place.sequential && is_warm(blob))) {
    mapping = std::make_shared<Mapping>(blob, place.read_ahead_kib);
  }
  if (!mapping || !mapping->mapped) {
    shard.refused = true;
    return;
  }
  shard.mapping = std::move(mapping);
  shard.cold = !place.memory && !is_warm(blob);
}

std::optional<Memory> View::State::tensor(const TensorInfo& info) {
  const Blob& blob = checkpoint_.index().blobs[info.blob];
  const bool plain = info.strides.empty() && info.encoding != kZeros && info.encoding != kSecretbox;
  if (!plain || !is_aligned(info.offset, alignment_of(info))) return std::nullopt;
  const std::lock_guard lock(mutex_);
  Shard& shard = shards_[info.blob];
  if (!shard.mapping && !shard.refused) open_shard(info.blob);
  if (shard.refused) return std::nullopt;
  // Deleted or replaced it is still the file that was opened.
  if (!same_bytes(blob.identity, checkpoint_.store().identity(blob))) {
    throw Error(ErrorCode::data,
                fmt::format("read {} [{}, +{}): the file changed since it was opened", blob.name,
                            info.offset, info.size));
  }
  if (shard.cold && info.size > 0) {
    if (owner_ != ::getpid()) {
      forget();
      owner_ = ::getpid();
      try {
        ahead_ = std::make_unique<ReadAhead>();
      } catch (const Error&) {
        // No thread to be had: the kernel's own read-ahead must do.
      }
    }
    if (ahead_) ahead_->want(shard.mapping, blob.fd, info.offset, info.size);
  }
  Memory memory;
  memory.data = shard.mapping->data + info.offset;
  memory.size = info.size;
  memory.owner = shard.mapping;
  return memory;
}

View::View(const Checkpoint& checkpoint) : state_(std::make_shared<State>(checkpoint)) {}
View::~View() = default;
View::View(View&&) noexcept = default;
View& View::operator=(View&&) noexcept = default;

std::optional<Memory> View::tensor(const TensorInfo& info) { return state_->tensor(info); }

}  // namespace inrush
