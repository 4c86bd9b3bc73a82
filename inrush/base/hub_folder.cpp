// huggingface_hub's cache, as far as a load of one commit fills it:
//   FOLDER/blobs/<etag>                     whole; its name is a promise
//   FOLDER/blobs/<etag>.inrush.incomplete   sparse; not <etag>.incomplete, which releases of
//                                           huggingface_hub before 1.0 go on with from its end
//   FOLDER/blobs/<etag>.inrush.ledger
//   FOLDER/snapshots/<commit>/<name>        a relative link to the blob
//   FOLDER/refs/<revision>                  the commit
//   LOCKS/<etag>.lock                       flock, held by whoever downloads it
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "inrush/base/cache_folder.h"
#include "inrush/base/fd.h"
#include "inrush/base/small_file.h"

namespace inrush {
namespace {

constexpr size_t kLongestEtag = 128;
constexpr mode_t kFolderMode = 0777;  // less what the umask takes, as huggingface_hub has it

// A part of a path that stays where it is.
bool is_plain(std::string_view part) { return !part.empty() && part != "." && part != ".."; }

bool stays_inside(std::string_view path) {
  while (true) {
    const size_t slash = path.find('/');
    if (!is_plain(path.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

bool is_name(const std::string& etag) {
  return !etag.empty() && etag.size() <= kLongestEtag && etag.front() != '.' &&
         std::all_of(etag.begin(), etag.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

// mkdir -p of the folders that a path leads through.
void make_way(int at, const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    ::mkdirat(at, path.substr(0, slash).c_str(), kFolderMode);
  }
}

bool exists(int at, const std::string& path) { return ::faccessat(at, path.c_str(), F_OK, 0) == 0; }

class HubFolder final : public CacheFolder {
 public:
  HubFolder(std::shared_ptr<const HubSnapshot> snapshot, Fd folder)
      : snapshot_(std::move(snapshot)), folder_(std::move(folder)) {
    writable_ = ::faccessat(folder_.get(), ".", W_OK, AT_EACCESS) == 0;
    for (const HubFile& file : snapshot_->files) {
      files_.emplace(snapshot_->shown + "/" + file.name, &file);
    }
  }

  [[nodiscard]] int fd() const override { return folder_.get(); }
  [[nodiscard]] bool writable() const override { return writable_; }

  [[nodiscard]] std::optional<CopyNames> names(const Blob& blob) const override {
    const HubFile* const file = find(blob);
    if (file == nullptr || !stays_inside(file->name) || !is_name(file->etag)) return std::nullopt;
    const std::string base = "blobs/" + file->etag;
    CopyNames names;
    names.title = file->etag;
    names.bytes = base + ".inrush.incomplete";
    names.ledger = base + ".inrush.ledger";
    names.lock = fmt::format("{}/{}.lock", snapshot_->locks, file->etag);
    names.whole = file->path.empty() ? base : file->path;
    names.digest = file->etag;
    names.mode = 0666;
    return names;
  }

  [[nodiscard]] bool prepare(const CopyNames& /*names*/, uint64_t /*missing*/) const override {
    make_way(folder_.get(), fmt::format("snapshots/{}/", snapshot_->commit));
    return true;
  }

  void publish(const Blob& blob, const CopyNames& names) const override {
    const HubFile* const file = find(blob);
    if (file != nullptr && link(*file, names.whole)) note_revision();
  }

 private:
  [[nodiscard]] const HubFile* find(const Blob& blob) const {
    const auto found = files_.find(blob.name);
    return found == files_.end() ? nullptr : found->second;
  }

  // The file in the snapshot; where links cannot be made the blob itself goes there.
  [[nodiscard]] bool link(const HubFile& file, const std::string& whole) const {
    const int at = folder_.get();
    const std::string pointer = fmt::format("snapshots/{}/{}", snapshot_->commit, file.name);
    if (exists(at, pointer)) return true;
    make_way(at, pointer);
    if (!snapshot_->links) return ::renameat(at, whole.c_str(), at, pointer.c_str()) == 0;
    std::string target = "../../";
    for (const char c : file.name) target += c == '/' ? "../" : "";
    target += "blobs/" + file.etag;
    const std::string partial = fmt::format("{}.{}.inrush", pointer, ::getpid());
    ::unlinkat(at, partial.c_str(), 0);
    if (::symlinkat(target.c_str(), at, partial.c_str()) != 0) {
      return ::renameat(at, whole.c_str(), at, pointer.c_str()) == 0;
    }
    return ::renameat(at, partial.c_str(), at, pointer.c_str()) == 0;
  }

  // Which commit the revision was, for when the Hub cannot be asked.
  void note_revision() const {
    const std::string& revision = snapshot_->revision;
    if (revision == snapshot_->commit || !snapshot_->offline.empty() || !stays_inside(revision)) {
      return;
    }
    const std::string path = snapshot_->folder + "/refs/" + revision;
    if (read_small_file(path) == snapshot_->commit) return;
    const int at = folder_.get();
    const std::string name = "refs/" + revision;
    const std::string partial = fmt::format("{}.{}.tmp", name, ::getpid());
    make_way(at, name);
    {
      const Fd fd(::openat(at, partial.c_str(),
                           O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666));
      const auto size = static_cast<ssize_t>(snapshot_->commit.size());
      if (!fd || ::write(fd.get(), snapshot_->commit.data(), snapshot_->commit.size()) != size) {
        return;
      }
    }
    ::renameat(at, partial.c_str(), at, name.c_str());
  }

  std::shared_ptr<const HubSnapshot> snapshot_;
  std::unordered_map<std::string, const HubFile*> files_;  // of the snapshot, as blobs are named
  Fd folder_;
  bool writable_ = false;
};

}  // namespace

std::shared_ptr<CacheFolder> open_hub_folder(std::shared_ptr<const HubSnapshot> snapshot) {
  const std::string& path = snapshot->folder;
  if (path.empty() || !is_name(snapshot->commit)) return nullptr;
  if (snapshot->offline.empty()) {
    make_way(AT_FDCWD, path + "/blobs/");
    make_way(AT_FDCWD, path + "/snapshots/");  // without it, a repository is taken for broken
    make_way(AT_FDCWD, snapshot->locks + "/");
  }
  Fd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return nullptr;
  return std::make_shared<HubFolder>(std::move(snapshot), std::move(folder));
}

}  // namespace inrush
