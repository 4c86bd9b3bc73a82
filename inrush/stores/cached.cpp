#include "inrush/stores/cached.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/cache_file.h"
#include "inrush/base/cache_folder.h"
#include "inrush/base/read_fully.h"
#include "inrush/codecs/crc32.h"
#include "inrush/stores/local_file.h"

namespace inrush {
namespace {

// Ends of files, padding: fetched beside what was loaded, so that a copy becomes whole.
constexpr uint64_t kLittle = kMiB;

const CachedBlob& cached(const Blob& blob) {
  return *static_cast<const CachedBlob*>(blob.handle.get());
}

class Filling {
 public:
  explicit Filling(CacheFile& file) : file_(file) { file_.enter(); }
  ~Filling() { file_.leave(); }
  Filling(const Filling&) = delete;
  Filling& operator=(const Filling&) = delete;

 private:
  CacheFile& file_;
};

class CachedStore final : public Store {
 public:
  CachedStore(std::unique_ptr<Store> inner, std::shared_ptr<CacheFolder> folder)
      : inner_(std::move(inner)), folder_(std::move(folder)) {}
  CachedStore(std::unique_ptr<Store> inner, CacheRoot root)
      : inner_(std::move(inner)), root_(std::move(root)) {}

  [[nodiscard]] std::string uri() const override { return inner_->uri(); }
  std::vector<std::string> list() override { return inner_->list(); }
  [[nodiscard]] bool lists() const override { return inner_->lists(); }

  Blob open(const std::string& name) override {
    auto both = std::make_shared<CachedBlob>();
    both->inner = inner_->open(name);
    if (both->inner.fd >= 0) return both->inner;
    if (has_version(both->inner)) both->file = CacheFile::open(folder(), both->inner);
    Blob blob = both->inner;
    blob.engine = "cache";
    blob.handle = std::move(both);
    return blob;
  }

  Identity identity(const Blob& blob) override {
    if (blob.fd >= 0) return identity_now(blob);
    return inner_->identity(cached(blob).inner);
  }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    if (blob.fd >= 0) return read_fully(blob.fd, offset, target, blob.name);
    const CachedBlob& both = cached(blob);
    if (both.file && both.file->covers(offset, target.size())) {
      return both.file->read(offset, target);
    }
    inner_->read(both.inner, offset, target);
    if (!both.file) return;
    const Filling filling(*both.file);
    both.file->fill(offset, target, fmt::format("{:08x}", crc32(0, target)));
    both.file->finish(kLittle);
    both.file->demand_right();
  }

  // Whether the copy is whole now. Throws Error{data} if it is, and is not what it must be.
  bool complete(const Blob& blob) {
    const CachedBlob& both = cached(blob);
    if (!both.file || both.file->fd() < 0) return false;
    if (both.file->is_sealed()) return true;
    const Filling filling(*both.file);
    if (both.file->filling() && both.file->missing() <= kLittle) {
      for (const Interval& gap : both.file->gaps()) {
        std::vector<std::byte> bytes(gap.size);
        read(blob, gap.offset, bytes);
      }
    }
    if (both.file->missing() > 0) return false;
    both.file->finish();
    both.file->demand_right();
    return true;
  }

 private:
  // Made for what is there: an open that fails leaves none.
  std::shared_ptr<CacheFolder> folder() {
    const std::lock_guard lock(mutex_);
    if (root_) folder_ = root_->folder_of(inner_->uri());
    root_.reset();
    return folder_;
  }

  std::unique_ptr<Store> inner_;
  std::mutex mutex_;  // over what follows
  std::optional<CacheRoot> root_;
  std::shared_ptr<CacheFolder> folder_;
};

// The copy under the blob's own name, on a descriptor of its own.
Blob local_copy(const Blob& blob) {
  const CachedBlob& both = cached(blob);
  Blob local;
  local.name = blob.name;
  local.size = blob.size;
  Fd fd(::fcntl(both.file->fd(), F_DUPFD_CLOEXEC, 0));
  if (!fd) throw open_error(blob.name, errno);
  local.identity = identity_of(fd.get(), blob.name);
  local.fd = fd.get();
  local.handle = std::make_shared<const std::pair<Fd, std::shared_ptr<const void>>>(std::move(fd),
                                                                                    blob.handle);
  return local;
}

}  // namespace

std::unique_ptr<Store> make_cached(std::unique_ptr<Store> inner, const StorageOptions& options) {
  if (options.cache_dir.empty()) return inner;
  return std::make_unique<CachedStore>(std::move(inner),
                                       CacheRoot(options.cache_dir, options.cache_size));
}

std::unique_ptr<Store> keep_in(std::unique_ptr<Store> inner, std::shared_ptr<CacheFolder> folder) {
  if (!folder) return inner;
  return std::make_unique<CachedStore>(std::move(inner), std::move(folder));
}

void use_whole_copies(Store& store, std::vector<Blob>& blobs) {
  auto* const here = dynamic_cast<CachedStore*>(&store);
  if (here == nullptr || blobs.empty()) return;
  const bool all = std::all_of(blobs.begin(), blobs.end(), [&](const Blob& blob) {
    return blob.engine == "cache" && here->complete(blob);
  });
  if (!all) return;
  for (Blob& blob : blobs) blob = local_copy(blob);
}

bool confirm_copies(std::span<const Blob> blobs, Deadline deadline) {
  for (const Blob& blob : blobs) {
    if (blob.engine != "cache" || !cached(blob).file) continue;
    const bool compared = cached(blob).file->wait_compared(deadline);
    cached(blob).file->demand_right();
    if (!compared) return false;
  }
  return true;
}

}  // namespace inrush
