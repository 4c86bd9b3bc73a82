#include "inrush/engines/local_files.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "inrush/base/align.h"
#include "inrush/base/direct_io.h"
#include "inrush/engines/submission.h"

namespace inrush {

namespace {

// Before the first file is opened: what every disk of today is content with.
constexpr uint32_t kUsualDirectAlign = 4096;

}  // namespace

LocalFiles::LocalFiles(const char* engine, const EngineOptions& options, uint64_t most_at_once)
    : direct_(options.direct), most_at_once_(most_at_once) {
  traits_.name = engine;
  traits_.memory_align = traits_.offset_align = direct_ ? kUsualDirectAlign : 1;
  traits_.most_in_flight = std::max(options.depth, 1U);
}

uint32_t LocalFiles::open(const Blob& blob) {
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::source,
                 fmt::format("open {} via {}: {}", blob.name, traits_.name, why));
  };
  if (blob.fd < 0) throw refuse("it is not a local file");
  LocalFile file{.blob = blob, .fd = {}, .shape = {.size = blob.size}};
  file.shape.most_at_once = most_at_once_;
  if (direct_) {
    DirectIo direct = open_direct(blob.fd, blob.name);
    if (!direct.fd) throw refuse(direct.refusal);
    file.fd = std::move(direct.fd);
    file.shape.align = direct.offset_align;
    file.memory_align = direct.memory_align;
  } else {
    file.fd = reopen(blob.fd, blob.name, O_RDONLY);
    if (!file.fd) {
      throw system_error(ErrorCode::source, fmt::format("open {} via {}", blob.name, traits_.name),
                         errno);
    }
  }
  const std::lock_guard lock(mutex_);
  const bool first = files_.empty();
  traits_.offset_align =
      first ? file.shape.align : std::max(traits_.offset_align, file.shape.align);
  traits_.memory_align =
      first ? file.memory_align : std::max(traits_.memory_align, file.memory_align);
  files_.push_back(std::move(file));
  return static_cast<uint32_t>(files_.size() - 1);
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
