#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "inrush/base/read_fully.h"
#include "inrush/core/quoted.h"
#include "inrush/stores/local_file.h"
#include "inrush/stores/stores.h"

namespace inrush {
namespace {

class FileList final : public Store {
 public:
  explicit FileList(std::vector<Entry> entries) : entries_(std::move(entries)) {}

  [[nodiscard]] std::string uri() const override {
    return fmt::format("{} and {} more", entries_.front().name, entries_.size() - 1);
  }

  std::vector<Entry> list() override { return entries_; }

  Blob open(const std::string& name) override {
    const auto at =
        std::lower_bound(entries_.begin(), entries_.end(), name,
                         [](const Entry& e, const std::string& n) { return e.name < n; });
    if (at == entries_.end() || at->name != name) {
      throw Error(ErrorCode::source, fmt::format("open {}: not among the {} files given",
                                                 quoted(name), entries_.size()));
    }
    return open_local_file(AT_FDCWD, name, name);
  }

  Identity identity(const Blob& blob) override { return identity_now(blob); }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    read_fully(blob.fd, offset, target, blob.name);
  }

 private:
  std::vector<Entry> entries_;  // sorted by name, never empty
};

}  // namespace

std::unique_ptr<Store> make_file_list(const std::vector<std::string>& paths) {
  if (paths.empty()) throw Error(ErrorCode::usage, "open: no files were given");
  std::vector<Entry> entries;
  for (const auto& path : paths) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) throw open_error(path, errno);
    if (S_ISDIR(status.st_mode)) {
      throw Error(ErrorCode::usage,
                  fmt::format("open {}: a folder among several files; open it by itself", path));
    }
    entries.push_back({path, static_cast<uint64_t>(status.st_size)});
  }
  const auto before = [](const Entry& a, const Entry& b) { return a.name < b.name; };
  std::sort(entries.begin(), entries.end(), before);
  const auto twice =
      std::adjacent_find(entries.begin(), entries.end(),
                         [](const Entry& a, const Entry& b) { return a.name == b.name; });
  if (twice != entries.end()) {
    throw Error(ErrorCode::usage, fmt::format("open {}: the file was given twice", twice->name));
  }
  return std::make_unique<FileList>(std::move(entries));
}

}  // namespace inrush
