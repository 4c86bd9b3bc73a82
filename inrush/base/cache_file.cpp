#include "inrush/base/cache_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/read_fully.h"
#include "inrush/base/small_file.h"
#include "inrush/base/text.h"
#include "inrush/base/write_fully.h"

namespace inrush {
namespace {

constexpr std::string_view kHead = "inrush cache 1 ";
constexpr std::string_view kSealed = "sealed";
constexpr std::chrono::milliseconds kSaveTime{200};  // between two ledgers
constexpr uint64_t kLargestLedger = 64 * kMiB;
constexpr uint64_t kDigestStep = kMiB;
constexpr int kLooks = 5;
constexpr std::chrono::milliseconds kLook{20};

// Of this start of the machine: what a process wrote is there for as long as that lasts.
std::string boot() {
  return std::string(trimmed(read_small_file("/proc/sys/kernel/random/boot_id")));
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

CacheFile::CacheFile(std::shared_ptr<CacheFolder> folder, const Blob& blob, CopyNames names)
    : folder_(std::move(folder)),
      blob_(blob),
      names_(std::move(names)),
      identity_(blob.identity),
      digest_(std::make_unique<ContentDigest>(names_.digest, blob.size)) {
  blob_.handle.reset();
  ledger_.add_blob(names_.title, identity_);
}

std::shared_ptr<CacheFile> CacheFile::open(std::shared_ptr<CacheFolder> folder, const Blob& blob) {
  if (!folder || blob.size == 0) return nullptr;
  std::optional<CopyNames> names = folder->names(blob);
  if (!names) return nullptr;
  std::shared_ptr<CacheFile> file(new CacheFile(std::move(folder), blob, std::move(*names)));
  const std::lock_guard lock(file->mutex_);
  if (!file->open_whole()) file->reload();
  return file->bytes_ || file->folder_->writable() ? file : nullptr;
}

// A copy that needs no other name is sealed once nobody waits for it.
CacheFile::~CacheFile() {
  const std::lock_guard lock(mutex_);
  const bool whole =
      writing_ && !sealed_ && names_.whole.empty() && ledger_.missing(names_.title).empty();
  if (whole && take_lock() && open_for_reading() && writing_->sync() == 0) save(true);
}

void CacheFile::enter() {
  bool begins = false;
  {
    const std::lock_guard lock(mutex_);
    begins = users_++ == 0;
  }
  refresh();
  // Who has just begun shows the first block in a moment.
  for (int look = 0; begins && look < kLooks && is_locked_out(); ++look) {
    std::this_thread::sleep_for(kLook);
    refresh();
  }
}

void CacheFile::leave() {
  const std::lock_guard lock(mutex_);
  if (filling_ && unsaved_ > 0) save(false);
  if (--users_ > 0) return;
  filling_ = false;
  elsewhere_ = false;
  lock_ = Fd();
  left_.notify_all();
}

bool CacheFile::wait_compared(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return names_.digest.empty() || left_.wait_until(lock, deadline, [this] { return users_ == 0; });
}

void CacheFile::demand_right() const {
  const std::lock_guard lock(mutex_);
  if (!wrong_.empty()) {
    throw Error(ErrorCode::data, fmt::format("read {}: {}", blob_.name, wrong_));
  }
}

void CacheFile::doubt() {
  const std::lock_guard lock(mutex_);
  if (names_.digest.empty() || !filling_ || sealed_) return;
  discard();
  stop_filling();
}

bool CacheFile::covers(uint64_t offset, uint64_t size) const {
  const std::lock_guard lock(mutex_);
  return bytes_ && (size == 0 || ledger_.covers(names_.title, {offset, size}));
}

std::vector<Interval> CacheFile::gaps() const {
  const std::lock_guard lock(mutex_);
  return ledger_.missing(names_.title);
}

uint64_t CacheFile::missing() const {
  uint64_t bytes = 0;
  for (const Interval& gap : gaps()) bytes += gap.size;
  return bytes;
}

void CacheFile::read(uint64_t offset, std::span<std::byte> target) const {
  read_fully(bytes_.get(), offset, target, blob_.name + " in the cache");
}

// With the lock held. False where there are no bytes, not so many as there must be, or other ones
// than those that reads know of.
bool CacheFile::open_for_reading() {
  Fd fd(::openat(folder_->fd(), names_.bytes.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  return adopt(std::move(fd));
}

// With the lock held. Reads go on: they stay with the file that they know.
bool CacheFile::adopt(Fd fd) {
  struct stat status {};
  struct stat known {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      static_cast<uint64_t>(status.st_size) != identity_.size) {
    return false;
  }
  if (!bytes_) {
    bytes_ = std::move(fd);
    return true;
  }
  return ::fstat(bytes_.get(), &known) == 0 && known.st_ino == status.st_ino &&
         known.st_dev == status.st_dev;
}

// With the lock held. Takes over the ledger on disk; whether it says more than was known.
bool CacheFile::reload() {
  struct stat status {};
  const std::optional<std::string> text = read_text(folder_->fd(), names_.ledger, status);
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
    if (known.identity(names_.title) != identity_) return false;
    const bool more = known.bytes_done() > ledger_.bytes_done();
    ledger_ = std::move(known);
    sealed_ = believer == kSealed;
    return more;
  } catch (const Error&) {
    return false;  // not a ledger: nothing of it is believed
  }
}

bool CacheFile::is_locked_out() const {
  const std::lock_guard lock(mutex_);
  return lock_ && !filling_ && !elsewhere_ && !sealed_;
}

bool CacheFile::refresh() {
  const std::lock_guard lock(mutex_);
  if (filling_ || sealed_ || !folder_->writable()) return false;
  if (!refused_ && begin_filling()) return true;
  return !sealed_ && (open_whole() || reload());
}

// With the lock held. Where a copy is whole under its own name, whoever brought it.
bool CacheFile::open_whole() {
  if (names_.whole.empty()) return false;
  if (!adopt(Fd(::openat(folder_->fd(), names_.whole.c_str(), O_RDONLY | O_CLOEXEC)))) return false;
  ledger_ = {};
  ledger_.add_blob(names_.title, identity_);
  ledger_.record(names_.title, {0, identity_.size});
  sealed_ = true;
  elsewhere_ = false;
  unsaved_ = 0;
  if (folder_->writable()) folder_->publish(blob_, names_);
  return true;
}

// With the lock held.
bool CacheFile::take_lock() {
  if (!lock_) {
    lock_ = Fd(::openat(folder_->fd(), names_.lock.c_str(),
                        O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, names_.mode | 0600));
  }
  elsewhere_ = false;
  if (!lock_) return false;
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    // Who shows no blocks of it brings none that could be waited for.
    elsewhere_ =
        names_.whole.empty() || ::faccessat(folder_->fd(), names_.ledger.c_str(), F_OK, 0) == 0;
    return false;
  }
  struct stat status {};
  if (::fstat(lock_.get(), &status) == 0 && status.st_nlink > 0) return true;
  lock_ = Fd();  // its name was taken away: it keeps nobody out
  return false;
}

// With the lock held: this process fills it from now on, if no other does.
bool CacheFile::begin_filling() {
  const int at = folder_->fd();
  if (!take_lock()) return false;
  if (open_whole()) {
    lock_ = Fd();
    return false;
  }
  reload();
  // A ledger that is not believed now would be of the bytes to come.
  if (ledger_.bytes_done() == 0) ::unlinkat(at, names_.ledger.c_str(), 0);
  uint64_t missing = 0;
  for (const Interval& gap : ledger_.missing(names_.title)) missing += gap.size;
  refused_ = !folder_->prepare(names_, missing);
  Fd fd(::openat(at, names_.bytes.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, names_.mode));
  struct stat status {};
  const bool sized = !refused_ && fd && ::fstat(fd.get(), &status) == 0 &&
                     (static_cast<uint64_t>(status.st_size) == identity_.size ||
                      ::ftruncate(fd.get(), static_cast<off_t>(identity_.size)) == 0);
  if (!sized) {
    refused_ = true;
    lock_ = Fd();
    return false;
  }
  writing_ = std::make_unique<BlockFile>(std::move(fd));
  filling_ = open_for_reading();
  refused_ = !filling_;
  if (refused_) {
    lock_ = Fd();
  } else if (ledger_.bytes_done() == 0) {
    save(false);  // somebody is at it
  }
  return filling_;
}

void CacheFile::fill(uint64_t offset, std::span<const std::byte> bytes, const std::string& digest,
                     bool around) {
  if (!filling_ || bytes.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    if (ledger_.covers(names_.title, {offset, bytes.size()})) return;
    ++writers_;
  }
  const bool read_again = !names_.digest.empty();
  const bool written = writing_->write(offset, bytes, around && !read_again) == 0;
  const std::lock_guard lock(mutex_);
  --writers_;
  if (!written || !filling_) return stop_filling();
  try {
    ledger_.record(names_.title, {offset, bytes.size()}, digest);
  } catch (const Error&) {
    return stop_filling();  // other bytes than before: neither is to be believed
  }
  unsaved_ += bytes.size();
  if (Clock::now() - saved_ >= kSaveTime) save(false);
}

void CacheFile::save_ledger() {
  const std::lock_guard lock(mutex_);
  if (filling_ && unsaved_ > 0) save(false);
}

void CacheFile::begin_sync(const Interval& bytes) const {
  if (filling_) writing_->begin_sync(bytes.offset, bytes.size);
}

bool CacheFile::digest_some(uint64_t most) {
  if (names_.digest.empty() || !filling_) return false;
  const std::unique_lock only(digest_mutex_, std::try_to_lock);
  if (!only || !digest_) return false;
  const uint64_t size = std::min(most, identity_.size - digested_);
  if (size == 0 || !covers(digested_, size)) return false;
  digest_next(size);
  return true;
}

// With digest_mutex_ held. Throws Error.
void CacheFile::digest_next(uint64_t size) {
  std::vector<std::byte> bytes(std::min(size, kDigestStep));
  while (size > 0) {
    const std::span<std::byte> step = std::span(bytes).first(std::min(size, kDigestStep));
    read(digested_, step);
    digest_->add(step);
    digested_ += step.size();
    size -= step.size();
  }
}

std::string CacheFile::finish(std::optional<uint64_t> most) {
  if (names_.whole.empty()) return {};
  const std::lock_guard only(digest_mutex_);
  {
    const std::lock_guard lock(mutex_);
    if (!filling_ || sealed_ || writers_ > 0 || !ledger_.missing(names_.title).empty()) return {};
  }
  const uint64_t left = names_.digest.empty() ? 0 : identity_.size - digested_;
  if (most && left > *most) return {};
  std::string wrong;
  try {
    digest_next(left);
    wrong = digest_->why_not();
  } catch (const Error&) {
    const std::lock_guard lock(mutex_);
    stop_filling();
    return {};
  }
  const std::lock_guard lock(mutex_);
  if (!wrong.empty()) {
    wrong_ = wrong;
    discard();
  } else if (writing_->sync() == 0 && ::renameat(folder_->fd(), names_.bytes.c_str(), folder_->fd(),
                                                 names_.whole.c_str()) == 0) {
    folder_->publish(blob_, names_);
    ::unlinkat(folder_->fd(), names_.ledger.c_str(), 0);
    sealed_ = true;
    unsaved_ = 0;
  }
  stop_filling();
  lock_ = Fd();
  return wrong;
}

// With the lock held. What is here of it is not what it must be.
void CacheFile::discard() {
  ::unlinkat(folder_->fd(), names_.ledger.c_str(), 0);
  ::unlinkat(folder_->fd(), names_.bytes.c_str(), 0);
  ledger_ = {};
  ledger_.add_blob(names_.title, identity_);
  unsaved_ = 0;
}

// With the lock held. A ledger takes its name when it is whole.
void CacheFile::save(bool sealed) {
  const std::string text =
      fmt::format("{}{}\n{}", kHead, sealed ? std::string(kSealed) : boot(), ledger_.serialise());
  const std::string partial = names_.ledger + "-partial";
  {
    const Fd fd(::openat(folder_->fd(), partial.c_str(),
                         O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
    const bool whole = fd && write_fully(fd.get(), 0, std::as_bytes(std::span(text))) == 0 &&
                       (!sealed || ::fsync(fd.get()) == 0);
    if (!whole) return stop_filling();
  }
  if (::renameat(folder_->fd(), partial.c_str(), folder_->fd(), names_.ledger.c_str()) != 0) {
    return stop_filling();
  }
  sealed_ = sealed;
  unsaved_ = 0;
  saved_ = Clock::now();
}

}  // namespace inrush
