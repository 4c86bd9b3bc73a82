#include "inrush/base/cache_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/read_fully.h"
#include "inrush/base/small_file.h"
#include "inrush/core/sha256.h"

namespace inrush {
namespace {

constexpr std::string_view kHead = "inrush cache 1 ";
constexpr std::string_view kSealed = "sealed";
constexpr uint64_t kSaveBytes = 32 * kMiB;  // the ledger is saved after so many, or so long
constexpr std::chrono::milliseconds kSaveTime{200};
constexpr uint64_t kLargestLedger = 64 * kMiB;

// Of this start of the machine: what a process wrote is there for as long as that lasts.
std::string boot() {
  return std::string(trimmed(read_small_file("/proc/sys/kernel/random/boot_id")));
}

std::string short_digest(const std::string& text) {
  Sha256 sum;
  sum.add(text);
  return sum.finish().substr(0, 16);
}

bool write_all(int fd, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  return true;
}

std::optional<std::string> read_text(int folder, const std::string& name, struct stat& status) {
  const Fd fd(::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd || ::fstat(fd.get(), &status) != 0) return std::nullopt;
  const auto size = static_cast<uint64_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || size > kLargestLedger) return std::nullopt;
  std::string text(size, '\0');
  try {
    read_fully(fd.get(), 0, std::as_writable_bytes(std::span(text)), name);
  } catch (const Error&) {
    return std::nullopt;
  }
  return text;
}

}  // namespace

CacheFile::CacheFile(std::shared_ptr<CacheFolder> folder, const Blob& blob)
    : folder_(std::move(folder)), name_(blob.name), identity_(blob.identity) {
  const std::string version =
      fmt::format("{} {} {}", identity_.size, identity_.mtime_ns, identity_.etag);
  base_ = short_digest(name_) + "-" + short_digest(version);
  ledger_.add_blob(name_, identity_);
}

std::shared_ptr<CacheFile> CacheFile::open(std::shared_ptr<CacheFolder> folder, const Blob& blob) {
  const bool versioned = !blob.identity.etag.empty() || blob.identity.mtime_ns != 0;
  if (!folder || !versioned || blob.size == 0) return nullptr;
  std::shared_ptr<CacheFile> file(new CacheFile(std::move(folder), blob));
  if (file->folder_->writable()) {
    file->refresh();
    if (file->filling_ || file->elsewhere_) return file;
  }
  const std::lock_guard lock(file->mutex_);
  file->reload();
  return file->bytes_ ? file : nullptr;
}

CacheFile::~CacheFile() {
  const std::lock_guard lock(mutex_);
  if (!writing_) return;
  const bool whole = ledger_.missing(name_).empty();
  if (whole && !sealed_ && ::fdatasync(writing_.get()) == 0) {
    save(true);
  } else if (unsaved_ > 0) {
    save(false);
  }
}

void CacheFile::settle() {
  const std::lock_guard lock(mutex_);
  if (writing_ && unsaved_ > 0) save(false);
}

bool CacheFile::covers(uint64_t offset, uint64_t size) const {
  const std::lock_guard lock(mutex_);
  return bytes_ && (size == 0 || ledger_.covers(name_, {offset, size}));
}

std::vector<Interval> CacheFile::gaps() const {
  const std::lock_guard lock(mutex_);
  return ledger_.missing(name_);
}

uint64_t CacheFile::missing() const {
  uint64_t bytes = 0;
  for (const Interval& gap : gaps()) bytes += gap.size;
  return bytes;
}

void CacheFile::read(uint64_t offset, std::span<std::byte> target) const {
  read_fully(bytes_.get(), offset, target, name_ + " in the cache");
}

// With the lock held. False where there are no bytes, or not so many as there must be.
bool CacheFile::open_for_reading() {
  if (bytes_) return true;
  Fd fd(::openat(folder_->fd(), (base_ + ".bytes").c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      static_cast<uint64_t>(status.st_size) != identity_.size) {
    return false;
  }
  bytes_ = std::move(fd);
  return true;
}

// With the lock held. Takes over the ledger on disk; whether it says more than was known.
bool CacheFile::reload() {
  struct stat status {};
  const std::optional<std::string> text = read_text(folder_->fd(), base_ + ".ledger", status);
  if (!text) return false;
  const std::pair seen{static_cast<uint64_t>(status.st_ino),
                       int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
  if (seen == seen_) return false;
  seen_ = seen;
  const size_t end = text->find('\n');
  if (!text->starts_with(kHead) || end == std::string::npos) return false;
  const std::string believer = text->substr(kHead.size(), end - kHead.size());
  if (believer != kSealed && (believer.empty() || believer != boot())) return false;
  if (!open_for_reading()) return false;
  try {
    Ledger known = Ledger::parse(std::string_view(*text).substr(end + 1));
    if (known.identity(name_) != identity_) return false;
    const bool more = known.bytes_done() > ledger_.bytes_done();
    ledger_ = std::move(known);
    sealed_ = believer == kSealed;
    return more;
  } catch (const Error&) {
    return false;  // not a ledger: nothing of it is believed
  }
}

bool CacheFile::refresh() {
  const std::lock_guard lock(mutex_);
  if (filling_ || !folder_->writable()) return false;
  if (!refused_ && begin_filling()) return true;
  return reload();
}

// With the lock held: this process fills it from now on, if no other does.
bool CacheFile::begin_filling() {
  const int at = folder_->fd();
  if (!lock_) {
    lock_ = Fd(
        ::openat(at, (base_ + ".lock").c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  }
  elsewhere_ = false;
  if (!lock_) return false;
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    elsewhere_ = true;
    return false;
  }
  reload();
  uint64_t missing = 0;
  for (const Interval& gap : ledger_.missing(name_)) missing += gap.size;
  refused_ = missing > 0 && !folder_->make_room(missing);
  remove_old_versions();
  Fd fd(::openat(at, (base_ + ".bytes").c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  struct stat status {};
  const bool sized = !refused_ && fd && ::fstat(fd.get(), &status) == 0 &&
                     (static_cast<uint64_t>(status.st_size) == identity_.size ||
                      ::ftruncate(fd.get(), static_cast<off_t>(identity_.size)) == 0);
  if (!sized) {
    refused_ = true;
    lock_ = Fd();
    return false;
  }
  writing_ = std::move(fd);
  filling_ = open_for_reading();
  return true;
}

// Of the same name, where nobody fills them.
void CacheFile::remove_old_versions() const {
  const std::string prefix = base_.substr(0, base_.find('-') + 1);
  for (const std::string& other : names_in(folder_->fd())) {
    const std::string base = other.substr(0, other.rfind('.'));
    if (!other.ends_with(".lock") || !base.starts_with(prefix) || base == base_) continue;
    const Fd lock(::openat(folder_->fd(), other.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    if (!lock || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) continue;
    for (const char* ending : {".ledger", ".bytes", ".lock"}) {
      ::unlinkat(folder_->fd(), (base + ending).c_str(), 0);
    }
  }
}

void CacheFile::fill(uint64_t offset, std::span<const std::byte> bytes, const std::string& digest) {
  if (!filling_ || bytes.empty()) return;
  if (!write_all(writing_.get(), offset, bytes)) return stop_filling();
  const std::lock_guard lock(mutex_);
  try {
    ledger_.record(name_, {offset, bytes.size()}, digest);
  } catch (const Error&) {
    return stop_filling();  // other bytes than before: neither is to be believed
  }
  unsaved_ += bytes.size();
  const auto now = Clock::now();
  if (unsaved_ >= kSaveBytes || now - saved_ >= kSaveTime) save(false);
}

// With the lock held. A ledger takes its name when it is whole.
void CacheFile::save(bool sealed) {
  const std::string text =
      fmt::format("{}{}\n{}", kHead, sealed ? std::string(kSealed) : boot(), ledger_.serialise());
  const std::string partial = base_ + ".ledger-partial";
  {
    const Fd fd(::openat(folder_->fd(), partial.c_str(),
                         O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
    const bool whole = fd && write_all(fd.get(), 0, std::as_bytes(std::span(text))) &&
                       (!sealed || ::fsync(fd.get()) == 0);
    if (!whole) return stop_filling();
  }
  if (::renameat(folder_->fd(), partial.c_str(), folder_->fd(), (base_ + ".ledger").c_str()) != 0) {
    return stop_filling();
  }
  sealed_ = sealed;
  unsaved_ = 0;
  saved_ = Clock::now();
}

}  // namespace inrush
