#include "inrush/stores/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "inrush/base/fd.h"
#include "inrush/base/text.h"
#include "inrush/core/quoted.h"
#include "inrush/stores/local_file.h"

namespace inrush {
namespace {

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

// Entries stay inside the folder, as far as names go; symbolic links lead where they lead.
bool leaves_folder(const std::string& entry) {
  if (entry.empty() || entry.front() == '/' || entry.find('\0') != std::string::npos) return true;
  return has_part(entry, "..");
}

class Directory final : public Store {
 public:
  Directory(Fd folder, std::string prefix, std::string uri)
      : folder_(std::move(folder)), prefix_(std::move(prefix)), uri_(std::move(uri)) {}

  [[nodiscard]] std::string uri() const override { return uri_; }

  std::vector<std::string> list() override {
    const int fd = ::openat(folder_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) throw open_error(uri_, errno);
    const std::unique_ptr<DIR, CloseFolder> folder(::fdopendir(fd));
    if (!folder) {
      ::close(fd);
      throw Error(ErrorCode::memory, fmt::format("list {}: out of memory", uri_));
    }
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* found = ::readdir(folder.get())) add(*found, names);
    if (errno != 0) throw system_error(ErrorCode::source, "list " + uri_, errno);
    std::sort(names.begin(), names.end());
    return names;
  }

  Blob open(const std::string& name) override {
    if (leaves_folder(name)) {
      throw Error(ErrorCode::data, fmt::format("open {} in {}: the name leads out of the folder",
                                               quoted(name), uri_));
    }
    return open_local_file(folder_.get(), name, prefix_ + name);
  }

  Identity identity(const Blob& blob) override { return identity_now(blob); }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    read_local_file(blob, offset, target);
  }

 private:
  // All but folders: what is not readable, or a link to nothing, shall fail when it is opened,
  // not be missing without a word. Only what the listing does not say is asked for, as each
  // question is a round trip on a far filesystem.
  void add(const dirent& found, std::vector<std::string>& names) {
    if (found.d_type == DT_DIR) return;
    if (found.d_type == DT_UNKNOWN || found.d_type == DT_LNK) {
      struct stat status {};
      if (::fstatat(folder_.get(), found.d_name, &status, 0) != 0) errno = 0;
      if (S_ISDIR(status.st_mode)) return;
    }
    names.emplace_back(found.d_name);
  }

  Fd folder_;
  std::string prefix_;
  std::string uri_;
};

}  // namespace

std::unique_ptr<Store> make_directory(const std::string& path, const std::string& prefix,
                                      const std::string& uri) {
  // To pass through: one that may not be listed still gives the file that was named, and a far
  // filesystem is not asked to open what nobody lists.
  Fd folder(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) throw open_error(uri, errno);
  return std::make_unique<Directory>(std::move(folder), prefix, uri);
}

}  // namespace inrush
