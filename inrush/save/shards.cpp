// A checkpoint in several files takes its place in steps, none of which looks whole but the last:
//
//   1  .<16 hex digits>.inrush-partial/   all files are written into a folder beside them
//   2  files of the same pattern go       an index that is there now names what is missing
//   3  the index takes its name, or goes  likewise
//   4  the files take their names
//
// A single file that replaces one of its own name does so in one step. Killed before step 2, what
// was there is still there; afterwards a reader that heeds the index sees that files are missing.
// In a remote place step 1 sends all bytes and completes no object; steps 2 to 4 are the same.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "inrush/base/fd.h"
#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/save.h"
#include "inrush/save/partial.h"
#include "inrush/save/parts.h"
#include "inrush/save/watched.h"
#include "inrush/stores/stores.h"

namespace inrush {
namespace {

constexpr std::string_view kSuffixField = "{suffix}";
constexpr std::string_view kIndexEnd = ".index.json";
constexpr size_t kMostShards = 99'999;

struct Shard {
  std::string name;
  std::vector<SaveTensor> tensors;
};

// A file name with a place for "-00001-of-00002", nothing where there is one file.
struct Pattern {
  std::string before;
  std::string after;

  explicit Pattern(const std::string& text) {
    const size_t field = text.find(kSuffixField);
    if (field == std::string::npos || text.find_first_of(std::string_view("/\0{}", 4)) != field ||
        text.find_first_of("{}", field + kSuffixField.size()) != std::string::npos ||
        text.find('/', field) != std::string::npos) {
      throw Error(ErrorCode::usage, fmt::format("save: the file name pattern {} is no name with "
                                                "one {} in it",
                                                quoted(text), kSuffixField));
    }
    before = text.substr(0, field);
    after = text.substr(field + kSuffixField.size());
  }

  [[nodiscard]] std::string name(size_t i, size_t count) const {
    if (count == 1) return before + after;
    return fmt::format("{}-{:05}-of-{:05}{}", before, i + 1, count, after);
  }

  [[nodiscard]] std::string index() const { return before + after + std::string(kIndexEnd); }

  // Whether an earlier save with this pattern may have written it.
  [[nodiscard]] bool matches(std::string_view file) const {
    if (file.size() < before.size() + after.size() || !file.starts_with(before) ||
        !file.ends_with(after)) {
      return false;
    }
    file.remove_prefix(before.size());
    file.remove_suffix(after.size());
    constexpr std::string_view kShape = "-00000-of-00000";
    return file.empty() ||
           (file.size() == kShape.size() &&
            std::equal(file.begin(), file.end(), kShape.begin(),
                       [](char a, char b) { return b == '0' ? a >= '0' && a <= '9' : a == b; }));
  }
};

// In the order given, each file filled until the next tensor does not fit; one that fits into no
// file has one of its own, and does not end the file before it.
std::vector<Shard> split(std::vector<SaveTensor> tensors, uint64_t most) {
  std::vector<Shard> shards;
  Shard open;
  uint64_t filled = 0;
  for (SaveTensor& tensor : tensors) {
    const uint64_t size = size_of(tensor);
    if (size > most) {
      shards.emplace_back().tensors.push_back(std::move(tensor));
      continue;
    }
    if (filled + size > most) {
      shards.push_back(std::exchange(open, {}));
      filled = 0;
    }
    filled += size;
    open.tensors.push_back(std::move(tensor));
  }
  if (!open.tensors.empty() || shards.empty()) shards.push_back(std::move(open));
  if (shards.size() > kMostShards) {
    throw Error(ErrorCode::usage, fmt::format("save: {} files of {} bytes; at most {}",
                                              shards.size(), most, kMostShards));
  }
  return shards;
}

std::string index_json(const std::vector<Shard>& shards, const SaveOptions::Metadata& metadata) {
  uint64_t total = 0;
  std::map<std::string_view, std::string_view> files;
  for (const Shard& shard : shards) {
    for (const SaveTensor& tensor : shard.tensors) {
      total += size_of(tensor);
      if (!files.emplace(tensor.name, shard.name).second) {
        throw Error(ErrorCode::usage,
                    fmt::format("save tensor {}: given twice", quoted(tensor.name)));
      }
    }
  }
  std::string json = "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(total);
  if (metadata) {
    for (const auto& [key, value] : *metadata) {
      json += fmt::format(",\n    {}: {}", json_string(key), json_string(value));
    }
  }
  json += "\n  },\n  \"weight_map\": {";
  const char* between = "";
  for (const auto& [tensor, file] : files) {
    json += fmt::format("{}\n    {}: {}", between, json_string(tensor), json_string(file));
    between = ",";
  }
  return json + "\n  }\n}\n";
}

// Where the files of a checkpoint are written before they take their names.
class Staging {
 public:
  virtual ~Staging() = default;
  virtual std::unique_ptr<Writer> writer(const std::string& file) = 0;
  // Steps 2 to 4, when all are written.
  virtual void place_all(const Pattern& pattern, const std::vector<Shard>& shards) = 0;
};

// The folder that the checkpoint will be in, and one inside it for what is not whole yet.
class LocalStaging final : public Staging {
 public:
  LocalStaging(const std::string& folder, bool sync) : path_(folder), sync_(sync) {
    if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) fail("make the folder", errno);
    folder_ = Fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder_) fail("open the folder", errno);
    remove_stale_partials(folder_.get(), "");
    for (int tries = 0; name_.empty() && tries < kMostPartialNames; ++tries) make_partial();
    if (name_.empty()) fail("make a folder in it", EBUSY);
  }

  ~LocalStaging() override {
    if (name_.empty()) return;
    for (const std::string& file : files_) ::unlinkat(folder_.get(), inside(file).c_str(), 0);
    ::unlinkat(folder_.get(), name_.c_str(), AT_REMOVEDIR);
  }
  LocalStaging(const LocalStaging&) = delete;
  LocalStaging& operator=(const LocalStaging&) = delete;

  std::unique_ptr<Writer> writer(const std::string& file) override {
    files_.push_back(file);
    return make_file_writer(path_ + "/" + inside(file), sync_);
  }

  void place_all(const Pattern& pattern, const std::vector<Shard>& shards) override {
    const bool several = shards.size() > 1;
    remove_old(pattern, several ? "" : shards.front().name);
    if (several) {
      place(pattern.index());
    } else {
      remove(pattern.index());
    }
    settle();
    for (const Shard& shard : shards) place(shard.name);
    settle();
  }

 private:
  // A folder in the folder that nobody removes meanwhile.
  void make_partial() {
    const std::string name = partial_name("");
    if (::mkdirat(folder_.get(), name.c_str(), 0700) != 0) fail("make a folder in it", errno);
    held_ = Fd(::openat(folder_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!held_ && errno != ENOENT) fail("open the folder in it", errno);
    if (held_ && hold_partial(held_.get())) name_ = name;
  }

  // Removes what an earlier save left under this pattern, but not `kept`.
  void remove_old(const Pattern& pattern, const std::string& kept) const {
    Fd again(::openat(folder_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const std::unique_ptr<DIR, int (*)(DIR*)> list(::fdopendir(again.get()), &::closedir);
    if (!list) fail("list the folder", errno);
    again.release();
    std::vector<std::string> old;
    while (const dirent* entry = ::readdir(list.get())) {
      if (pattern.matches(entry->d_name) && entry->d_name != kept) old.emplace_back(entry->d_name);
    }
    for (const std::string& name : old) remove(name);
    settle();
  }

  void remove(const std::string& name) const {
    if (::unlinkat(folder_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
      fail("remove the old " + name, errno);
    }
  }

  void place(const std::string& file) const {
    if (::renameat(folder_.get(), inside(file).c_str(), folder_.get(), file.c_str()) != 0) {
      fail("give a file its name " + file, errno);
    }
  }

  // Steps reach the disk in their order.
  void settle() const {
    if (sync_ && ::fsync(folder_.get()) != 0 && errno != EINVAL && errno != ENOSYS) {
      fail("fsync the folder", errno);
    }
  }

  [[nodiscard]] std::string inside(const std::string& file) const { return name_ + "/" + file; }

  [[noreturn]] void fail(const std::string& what, int error_number) const {
    throw system_error(ErrorCode::source, fmt::format("save {}: {}", path_, what), error_number);
  }

  std::string path_;
  bool sync_;
  Fd folder_;
  Fd held_;  // the folder of this name
  std::string name_;
  std::vector<std::string> files_;
};

// Everything but the end of a writer whose object shall not be seen yet.
class HeldWriter final : public Writer {
 public:
  explicit HeldWriter(Writer& writer) : writer_(writer) {}
  [[nodiscard]] WriterTraits traits() const override { return writer_.traits(); }
  void create(uint64_t size) override { writer_.create(size); }
  void write(uint64_t offset, std::span<const std::byte> data) override {
    writer_.write(offset, data);
  }
  void finish() override {}
  void abort() noexcept override { writer_.abort(); }

 private:
  Writer& writer_;
};

// A prefix of a bucket, or of the keys of Redis. What is not finished goes with its writers.
class RemoteStaging final : public Staging {
 public:
  RemoteStaging(const std::string& folder, const StorageOptions& storage)
      : folder_(folder.ends_with('/') ? folder : folder + "/"), storage_(storage) {}

  std::unique_ptr<Writer> writer(const std::string& file) override {
    auto& writer = writers_[file] = make_remote_writer(folder_ + file, storage_);
    return std::make_unique<HeldWriter>(*writer);
  }

  void place_all(const Pattern& pattern, const std::vector<Shard>& shards) override {
    const bool several = shards.size() > 1;
    const std::string kept = several ? "" : shards.front().name;
    for (const std::string& name : find_place(folder_, storage_).store->list()) {
      const bool old = pattern.matches(name) || (!several && name == pattern.index());
      if (old && name != kept) remove_remote(folder_ + name, storage_);
    }
    if (several) writers_.at(pattern.index())->finish();
    for (const Shard& shard : shards) writers_.at(shard.name)->finish();
  }

 private:
  std::string folder_;
  StorageOptions storage_;
  std::map<std::string, std::unique_ptr<Writer>> writers_;
};

std::unique_ptr<Staging> make_staging(const std::string& folder, const ShardOptions& options) {
  if (is_remote(folder)) return std::make_unique<RemoteStaging>(folder, options.storage);
  return std::make_unique<LocalStaging>(local_path(folder), options.sync);
}

}  // namespace

std::vector<std::string> save_sharded(const std::string& folder, std::vector<SaveTensor> tensors,
                                      const ShardOptions& options) {
  if (options.max_shard_size == 0) {
    throw Error(ErrorCode::usage, "save: shards of 0 bytes hold nothing");
  }
  const Pattern pattern(options.filename_pattern);
  std::vector<Shard> shards = split(std::move(tensors), options.max_shard_size);
  for (size_t i = 0; i < shards.size(); ++i) shards[i].name = pattern.name(i, shards.size());
  const bool several = shards.size() > 1;
  const std::string index = several ? index_json(shards, options.metadata) : "";

  SaveOptions::Metadata own = options.file_metadata;
  if (!several && options.metadata) {
    if (!own) own.emplace();
    for (const auto& [key, value] : *options.metadata) own->insert_or_assign(key, value);
  }
  const std::unique_ptr<Staging> staging = make_staging(folder, options);
  std::vector<std::string> names;
  std::optional<Sealer> sealer;
  if (options.seal) sealer.emplace(*options.seal, shards.size());
  for (Shard& shard : shards) {
    const auto writer = watched(staging->writer(shard.name), options.stopped);
    std::vector<SaveTensor> its = std::exchange(shard.tensors, {});
    if (sealer) {
      sealer->write(*writer, std::move(its), own);
    } else {
      write_safetensors(*writer, std::move(its), own);
    }
    names.push_back(shard.name);
  }
  if (several) {
    const Extent extent{index.size(), std::as_bytes(std::span(index)).data(), {}};
    write_parts(*staging->writer(pattern.index()), {&extent, 1});
    names.push_back(pattern.index());
  }
  staging->place_all(pattern, shards);
  return names;
}

}  // namespace inrush
