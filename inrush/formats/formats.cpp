#include "inrush/formats/formats.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "inrush/base/fd.h"
#include "inrush/base/parallel.h"
#include "inrush/base/text.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/gguf.h"
#include "inrush/formats/guess.h"
#include "inrush/formats/hf_index.h"
#include "inrush/formats/numbered.h"
#include "inrush/formats/pytorch.h"
#include "inrush/formats/safetensors.h"
#include "inrush/formats/sealed.h"
#include "inrush/formats/serverlessllm.h"
#include "inrush/formats/tensorizer.h"

namespace inrush {
namespace {

// In a folder with files of several, the first has it.
constexpr std::array kTable{
    Format{"safetensors", named_safetensors, begins_safetensors, index_safetensors, true},
    Format{"serverlessllm", named_serverless, begins_serverless, index_serverless, false},
    Format{"pytorch", named_pytorch, begins_pytorch, index_pytorch, true},
    Format{"tensorizer", named_tensorizer, begins_tensorizer, index_tensorizer, true},
    Format{"sealed", named_sealed, begins_sealed, index_sealed, true},
    Format{"gguf", named_gguf, begins_gguf, index_gguf, true},
};

constexpr size_t kHeadSize = 64;     // bytes shown to begins()
constexpr size_t kMostHeads = 100;   // files of a folder whose names say nothing that are looked at
constexpr size_t kMostThreads = 16;  // headers on a far store come one round trip after the other
constexpr size_t kMostNamed = 5;     // in one error

std::string format_names() {
  std::string names;
  for (const auto& row : kTable) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

std::string some_of(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kMostNamed);
  const size_t more = names.size() - shown;
  return fmt::format("{}{}",
                     fmt::join(names.begin(), names.begin() + static_cast<long>(shown), ", "),
                     more > 0 ? fmt::format(" and {} more", more) : "");
}

struct Found {
  const Format* format = nullptr;
  std::vector<std::string> entries;
};

// A store whose entries stay open from the look into them that tells their format until they are
// read: opening is a round trip where they are far away, and what was looked at is what is read.
class OpenedOnce final : public Store {
 public:
  explicit OpenedOnce(Store& store) : store_(store) {}

  [[nodiscard]] std::string uri() const override { return store_.uri(); }
  std::vector<std::string> list() override { return store_.list(); }
  [[nodiscard]] bool lists() const override { return store_.lists(); }
  Identity identity(const Blob& blob) override { return store_.identity(blob); }
  void read(const Blob& blob, uint64_t offset, std::span<std::byte> target) override {
    store_.read(blob, offset, target);
  }

  Blob look(const std::string& name) {
    Blob blob = store_.open(name);
    const std::lock_guard lock(mutex_);
    open_.insert_or_assign(name, blob);
    return blob;
  }
  Blob open(const std::string& name) override {
    {
      const std::lock_guard lock(mutex_);
      if (auto known = open_.extract(name)) return std::move(known.mapped());
    }
    return store_.open(name);
  }

 private:
  Store& store_;
  std::mutex mutex_;
  std::map<std::string, Blob> open_;
};

struct Head {
  std::string name;  // of the blob
  std::vector<std::byte> bytes;
};

Head head_of(OpenedOnce& store, const std::string& entry) {
  const Blob blob = store.look(entry);
  Head head{blob.name, std::vector<std::byte>(std::min<uint64_t>(blob.size, kHeadSize))};
  store.read(blob, 0, head.bytes);
  return head;
}

// ".x" and "._x" are leftovers of editors, downloads and macOS.
bool is_hidden(const std::string& entry) { return file_name(entry).front() == '.'; }

template <typename Says>
const Format* first_row(Says says) {
  const auto* const row = std::find_if(kTable.begin(), kTable.end(), says);
  return row == kTable.end() ? nullptr : row;
}

// What these files, which belong together, are: as the first of them begins. Where that says
// nothing the name does, and reading it as what it is called tells what is wrong with it.
const Format* format_of(OpenedOnce& store, const std::vector<std::string>& entries) {
  const Head head = head_of(store, entries.front());
  const Format* format = first_row([&](const Format& row) { return row.begins(head.bytes); });
  if (format != nullptr) return format;
  format = first_row([&](const Format& row) { return row.named(entries.front()); });
  if (format != nullptr) return format;
  throw Error(ErrorCode::data,
              fmt::format("open {}: {}{}", head.name,
                          head.bytes.empty() ? "the file is empty"
                                             : fmt::format("not of a format that can be read ({})",
                                                           format_names()),
                          seems_to_be(head.bytes)));
}

// Files of a folder whose names say nothing: those that begin as the first does that is known.
void look_into(OpenedOnce& store, const std::vector<std::string>& listing, Found& found) {
  for (size_t i = 0; i < std::min(listing.size(), kMostHeads); ++i) {
    if (is_hidden(listing[i])) continue;
    Head head;
    try {
      head = head_of(store, listing[i]);
    } catch (const Error&) {
      continue;  // a socket, or what others may not read: no part of a checkpoint
    }
    const Format* format = first_row([&](const Format& row) { return row.begins(head.bytes); });
    if (format == nullptr || (found.format != nullptr && format != found.format)) continue;
    found.format = format;
    found.entries.push_back(listing[i]);
  }
}

// In a folder names decide which files to look at: others may lie beside a checkpoint's. Only where
// no name says anything are they looked into.
Found find_in_folder(OpenedOnce& store, const std::vector<std::string>& listing) {
  Found found;
  for (const auto& format : kTable) {
    std::copy_if(
        listing.begin(), listing.end(), std::back_inserter(found.entries),
        [&](const std::string& entry) { return !is_hidden(entry) && format.named(entry); });
    if (found.entries.empty()) continue;
    found.format = format_of(store, found.entries);
    return found;
  }
  found.entries = serverless_ranks(store);
  if (!found.entries.empty()) {
    found.format = format_of(store, found.entries);
    return found;
  }
  look_into(store, listing, found);
  if (found.format != nullptr) return found;
  if (listing.empty()) {
    throw Error(ErrorCode::data, fmt::format("open {}: no files in it", store.uri()));
  }
  throw Error(ErrorCode::data,
              fmt::format("open {}: none of its files is of a format that can be read ({}): {}",
                          store.uri(), format_names(), some_of(listing)));
}

// The files that an index file names, all of which must be there.
std::vector<std::string> files_of(Store& store, const std::string& entry, const HfIndex& index) {
  const std::string folder = entry.substr(0, entry.rfind('/') + 1);
  const bool sees_all = store.lists();
  const std::vector<std::string> listing = sees_all ? store.list() : std::vector<std::string>();
  std::vector<std::string> files;
  std::vector<std::string> missing;
  for (const auto& file : index.files) {
    files.push_back(folder + file);
    // What lies in a folder below is not listed; open() will say if it is not there.
    const bool below = file.find('/') != std::string::npos;
    const bool there =
        !sees_all || below || std::binary_search(listing.begin(), listing.end(), files.back());
    if (!there) missing.push_back(quoted(file));
  }
  if (!missing.empty()) {
    throw Error(ErrorCode::data,
                fmt::format("index {}: {} of the {} files that it names {} not there: {}",
                            index.name, missing.size(), files.size(),
                            missing.size() == 1 ? "is" : "are", some_of(missing)));
  }
  return files;
}

// Where no index file says what belongs together, numbers in the names may.
void check_parts(const std::string& uri, const std::vector<std::string>& entries) {
  const std::vector<std::string> missing = missing_parts(entries);
  if (missing.empty()) return;
  std::vector<std::string> names;
  for (const auto& name : missing) names.push_back(quoted(name));
  throw Error(ErrorCode::data,
              fmt::format("open {}: by the names of its files, {} more belong{} to them: {}", uri,
                          missing.size(), missing.size() == 1 ? "s" : "", some_of(names)));
}

Index join(std::vector<Index> parts) {
  Index whole = std::move(parts.front());
  size_t count = 0;
  for (const auto& part : parts) count += part.tensors.size();
  whole.tensors.reserve(whole.tensors.size() + count);
  for (auto part = parts.begin() + 1; part != parts.end(); ++part) {
    const auto first_blob = static_cast<uint32_t>(whole.blobs.size());
    for (auto& tensor : part->tensors) tensor.blob += first_blob;
    std::move(part->tensors.begin(), part->tensors.end(), std::back_inserter(whole.tensors));
    std::move(part->blobs.begin(), part->blobs.end(), std::back_inserter(whole.blobs));
    std::move(part->metadata.begin(), part->metadata.end(), std::back_inserter(whole.metadata));
  }
  whole.finish();
  return whole;
}

Index index_all(Store& store, const Found& found) {
  const Format* const format = found.format;
  const auto& entries = found.entries;
  if (!format->separate || entries.size() == 1) return format->index(store, entries);
  std::vector<Index> parts(entries.size());
  make_room_for_descriptors(entries.size());  // before there are threads
  parallel_for(entries.size(), kMostThreads,
               [&](size_t i) { parts[i] = format->index(store, {entries[i]}); });
  return join(std::move(parts));
}

}  // namespace

std::span<const Format> format_table() { return kTable; }

Index read_index(Store& place, const std::vector<std::string>& entries) {
  OpenedOnce store(place);
  const std::vector<std::string> listing = entries.empty() ? store.list() : entries;
  if (const auto entry = pick_hf_index(listing, store.uri())) {
    const HfIndex decided = read_hf_index(store, *entry);
    const auto files = files_of(store, *entry, decided);
    Index index = index_all(store, {format_of(store, files), files});
    check_promises(decided, index);
    return index;
  }
  if (!entries.empty()) return index_all(store, {format_of(store, entries), entries});
  const Found found = find_in_folder(store, listing);
  check_parts(store.uri(), found.entries);
  return index_all(store, found);
}

}  // namespace inrush
