#include "inrush/engines/local_files.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/direct_io.h"
#include "inrush/base/leases.h"
#include "inrush/engines/submission.h"

namespace inrush {

namespace {

// Before the first file is opened: what every disk of today is content with.
constexpr uint32_t kUsualDirectAlign = 4096;
// Of all descriptors that the process may have, those that one engine keeps open: files come in
// order, so that one closed is rarely asked for again.
constexpr rlim_t kShareOfAll = 32;
constexpr size_t kLeastOpen = 4;
// Where less than an eighth is left, the least is kept.
constexpr rlim_t kShareLeft = 8;

rlim_t descriptor_limit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

// The store's own descriptor, which the blob keeps open. Given back to `lender`, if there is one.
std::shared_ptr<const Fd> shared_with(const Blob& blob,
                                      const std::shared_ptr<Leases>& lender = nullptr) {
  return {new Fd(blob.fd), [handle = blob.handle, lender](Fd* fd) {
            const int number = fd->release();
            if (lender) lender->give_back(number);
            delete fd;
          }};
}

}  // namespace

LocalFiles::LocalFiles(const char* engine, const EngineOptions& options, uint64_t most_at_once,
                       Descriptors descriptors)
    : direct_(options.direct),
      whose_(descriptors),
      lent_(options.lent),
      limit_(descriptor_limit()),
      most_at_once_(most_at_once) {
  traits_.name = engine;
  traits_.memory_align = traits_.offset_align = direct_ ? kUsualDirectAlign : 1;
  traits_.most_in_flight = std::max(options.depth, 1U);
}

Error LocalFiles::refusal(const Blob& blob, const std::string& why) const {
  return {ErrorCode::source, fmt::format("open {} via {}: {}", blob.name, traits_.name, why)};
}

uint32_t LocalFiles::open(const Blob& blob) {
  if (blob.fd < 0) throw refusal(blob, "it is not a local file");
  LocalFile file{.blob = blob, .shape = {.size = blob.size}};
  file.shape.most_at_once = most_at_once_;
  std::shared_ptr<const Fd> fd;
  if (direct_) {
    DirectIo direct = open_around_cache(blob);
    fd = std::make_shared<const Fd>(std::move(direct.fd));
    file.shape.align = direct.offset_align;
    file.memory_align = direct.memory_align;
  } else {
    fd = open_buffered(blob);
  }
  const std::lock_guard lock(mutex_);
  const bool first = files_.empty();
  traits_.offset_align =
      first ? file.shape.align : std::max(traits_.offset_align, file.shape.align);
  traits_.memory_align =
      first ? file.memory_align : std::max(traits_.memory_align, file.memory_align);
  files_.push_back(std::move(file));
  descriptors_.emplace_back();
  const auto number = static_cast<uint32_t>(files_.size() - 1);
  keep_open(number, std::move(fd));
  return number;
}

std::shared_ptr<const Fd> LocalFiles::descriptor(uint32_t file) {
  {
    const std::lock_guard lock(mutex_);
    if (std::shared_ptr<const Fd> known = descriptors_.at(file)) {
      if (open_.back() != file) {
        open_.erase(std::find(open_.begin(), open_.end(), file));
        open_.push_back(file);
      }
      return known;
    }
  }
  const Blob& blob = at(file).blob;
  std::shared_ptr<const Fd> fd;
  if (direct_) {
    Fd again = reopen_making_room(blob, O_RDONLY | O_DIRECT);
    if (!again) {
      throw system_error(ErrorCode::source, fmt::format("open {} via {}", blob.name, traits_.name),
                         errno);
    }
    fd = std::make_shared<const Fd>(std::move(again));
  } else {
    fd = open_buffered(blob);
  }
  const std::lock_guard lock(mutex_);
  if (!descriptors_[file]) keep_open(file, fd);
  return fd;
}

// With the lock held.
void LocalFiles::keep_open(uint32_t file, std::shared_ptr<const Fd> fd) {
  const bool scarce = static_cast<rlim_t>(fd->get()) >= limit_ - limit_ / kShareLeft;
  const size_t most = scarce ? kLeastOpen : std::max<size_t>(limit_ / kShareOfAll, kLeastOpen);
  descriptors_[file] = std::move(fd);
  open_.push_back(file);
  while (open_.size() > most) {
    descriptors_[open_.front()].reset();
    open_.erase(open_.begin());
  }
}

// Whether there were any.
bool LocalFiles::close_all() {
  const std::lock_guard lock(mutex_);
  const bool any = !open_.empty();
  for (const uint32_t file : open_) descriptors_[file].reset();
  open_.clear();
  return any;
}

DirectIo LocalFiles::open_around_cache(const Blob& blob) {
  DirectIo direct = open_direct(blob.fd, blob.name);
  if (!direct.fd && is_out_of_descriptors(direct.error_number) && close_all()) {
    direct = open_direct(blob.fd, blob.name);
  }
  if (!direct.fd && is_out_of_descriptors(direct.error_number)) {
    throw system_error(ErrorCode::memory, fmt::format("open {} via {}", blob.name, traits_.name),
                       direct.error_number);
  }
  if (!direct.fd) throw refusal(blob, direct.refusal);
  return direct;
}

// Empty, and errno, where it cannot be.
Fd LocalFiles::reopen_making_room(const Blob& blob, int flags) {
  Fd fd = reopen(blob.fd, blob.name, flags);
  return !fd && is_out_of_descriptors(errno) && close_all() ? reopen(blob.fd, blob.name, flags)
                                                            : std::move(fd);
}

std::shared_ptr<const Fd> LocalFiles::open_buffered(const Blob& blob) {
  if (whose_ == Descriptors::shared) return shared_with(blob);
  if (lent_ && lent_->take(blob.fd)) return shared_with(blob, lent_);
  Fd fd = reopen_making_room(blob, O_RDONLY);
  if (fd) return std::make_shared<const Fd>(std::move(fd));
  // What the kernel reads ahead is then found out for all who share it.
  if (is_out_of_descriptors(errno)) return shared_with(blob);
  throw system_error(ErrorCode::source, fmt::format("open {} via {}", blob.name, traits_.name),
                     errno);
}

const LocalFile& LocalFiles::at(uint32_t file) const {
  const std::lock_guard lock(mutex_);
  return files_.at(file);
}

void LocalFiles::check(std::span<const Read> reads, size_t in_flight) const {
  size_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = files_.size();
  }
  check_room(traits_, reads.size(), in_flight);
  check_reads(traits_, reads, count);
  for (const Read& read : reads) check_shape(read);
}

void LocalFiles::check_shape(const Read& read) const {
  const LocalFile& file = at(read.file);
  if (!is_aligned(read.offset, file.shape.align) || !is_aligned(read.target, file.memory_align)) {
    throw refused(traits_, read,
                  fmt::format("offset and target must be multiples of {} and {}", file.shape.align,
                              file.memory_align));
  }
  if (!is_aligned(read.size, file.shape.align) && read.offset + read.size < file.blob.size) {
    throw refused(
        traits_, read,
        fmt::format("the size must be a multiple of {}, or reach the end", file.shape.align));
  }
}

Error LocalFiles::error(const Read& read, int error_number, uint64_t arrived) const {
  return read_error(at(read.file).blob.name, read, traits_.name, error_number, arrived);
}

}  // namespace inrush
