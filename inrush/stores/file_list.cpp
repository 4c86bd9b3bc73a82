#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "inrush/core/quoted.h"
#include "inrush/stores/local_file.h"
#include "inrush/stores/stores.h"

namespace inrush {
namespace {

class FileList final : public Store {
 public:
  explicit FileList(std::vector<std::string> paths) : paths_(std::move(paths)) {}

  [[nodiscard]] std::string uri() const override {
    return fmt::format("{} and {} more", paths_.front(), paths_.size() - 1);
  }

  std::vector<std::string> list() override { return paths_; }

  Blob open(const std::string& name) override {
    if (!std::binary_search(paths_.begin(), paths_.end(), name)) {
      throw Error(ErrorCode::source, fmt::format("open {}: not among the {} files given",
                                                 quoted(name), paths_.size()));
    }
    return open_local_file(AT_FDCWD, name, name);
  }

  Identity identity(const Blob& blob) override { return identity_now(blob); }

  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    read_local_file(blob, offset, target);
  }

 private:
  std::vector<std::string> paths_;  // sorted, never empty
};

}  // namespace

std::unique_ptr<Store> make_file_list(std::vector<std::string> paths) {
  if (paths.empty()) throw Error(ErrorCode::usage, "open: no files were given");
  for (const auto& path : paths) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) throw open_error(path, errno);
    if (S_ISDIR(status.st_mode)) {
      throw Error(ErrorCode::usage,
                  fmt::format("open {}: a folder among several files; open it by itself", path));
    }
  }
  std::sort(paths.begin(), paths.end());
  const auto twice = std::adjacent_find(paths.begin(), paths.end());
  if (twice != paths.end()) {
    throw Error(ErrorCode::usage, fmt::format("open {}: the file was given twice", *twice));
  }
  return std::make_unique<FileList>(std::move(paths));
}

}  // namespace inrush
