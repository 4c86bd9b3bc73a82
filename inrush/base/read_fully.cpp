#include "inrush/base/read_fully.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <new>
#include <thread>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"

namespace inrush {

namespace {

// In a row and without a byte between them. A signal storm passes; a file that can only ever say
// EAGAIN fails after about a second.
constexpr uint32_t kMostStalls = 1000;

std::string place(const std::string& name, const Read& read, const char* via) {
  return fmt::format("read {} [{}, +{}){}{}", name, read.offset, read.size, *via ? " via " : "",
                     via);
}

ErrorCode code_of(int error_number) {
  if (error_number == ECANCELED) return ErrorCode::cancelled;
  if (error_number == ENOMEM) return ErrorCode::memory;
  return ErrorCode::source;
}

}  // namespace

ReadProgress::ReadProgress(const Read& read, const FileShape& shape)
    : target_(read.target),
      offset_(read.offset),
      size_(read.size),
      required_(std::min(read.required, read.size)),
      shape_(shape) {
  assert(is_aligned(offset_, shape.align) && is_aligned(shape.most_at_once, shape.align));
}

ReadProgress::Part ReadProgress::next() {
  // Direct I/O takes whole blocks only: a resumed read begins at the block that was cut, and a
  // tail without room for a whole block comes by way of a block of our own.
  const uint64_t whole = align_down(size_, shape_.align);
  resumed_at_ = align_down(arrived_, shape_.align);
  const uint64_t offset = offset_ + resumed_at_;
  if (resumed_at_ < whole) {
    return {target_ + resumed_at_, offset, std::min(whole - resumed_at_, shape_.most_at_once)};
  }
  if (!bounce_) {
    const uint64_t alignment = std::max<uint64_t>(shape_.align, alignof(std::max_align_t));
    bounce_ = allocate_aligned(alignment, alignment);
    if (!bounce_) throw std::bad_alloc();
  }
  return {bounce_.get(), offset, shape_.align};
}

ReadProgress::State ReadProgress::took(int64_t result) {
  if (result == -EINTR || result == -EAGAIN) {
    if (++stalls_ <= kMostStalls) return State::more;
  }
  if (result < 0) {
    error_number_ = static_cast<int>(-result);
    return State::failed;
  }
  const uint64_t reached = std::min(resumed_at_ + static_cast<uint64_t>(result), size_);
  if (reached <= arrived_) return finish_at_end();
  stalls_ = 0;
  if (resumed_at_ >= align_down(size_, shape_.align)) {
    std::memcpy(target_ + resumed_at_, bounce_.get(), reached - resumed_at_);
  }
  arrived_ = reached;
  if (arrived_ == size_) return State::done;
  // Where the blob is known to end there is nothing more to ask for.
  return offset_ + arrived_ >= shape_.size ? finish_at_end() : State::more;
}

ReadProgress::State ReadProgress::finish_at_end() {
  return arrived_ >= required_ ? State::done : State::failed;
}

bool read_fully(int fd, ReadProgress& progress, const std::atomic<bool>* stop) {
  for (;;) {
    const auto part = progress.next();
    ssize_t count = -1;
    errno = ECANCELED;
    if (!stop || !stop->load(std::memory_order_relaxed)) {
      count = ::pread(fd, part.target, part.size, static_cast<off_t>(part.offset));
    }
    const auto state = progress.took(count < 0 ? -errno : count);
    if (state != ReadProgress::State::more) return state == ReadProgress::State::done;
    if (progress.stalls() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void read_fully(int fd, uint64_t offset, std::span<std::byte> target, const std::string& name) {
  if (target.empty()) return;
  const Read read{
      .offset = offset, .size = target.size(), .required = target.size(), .target = target.data()};
  ReadProgress progress(read, {.size = UINT64_MAX});
  if (!read_fully(fd, progress)) {
    throw read_error(name, read, "", progress.error_number(), progress.arrived());
  }
}

Error read_error(const std::string& name, const Read& read, const char* via, int error_number,
                 uint64_t arrived) {
  const std::string where = place(name, read, via);
  if (error_number != 0) return system_error(code_of(error_number), where, error_number);
  return {ErrorCode::data,
          fmt::format("{}: the file ends at byte {}, but bytes up to {} are needed", where,
                      read.offset + arrived, read.offset + read.required)};
}

}  // namespace inrush
