#include "inrush/formats/formats.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "inrush/base/parallel.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/guess.h"
#include "inrush/formats/hf_index.h"
#include "inrush/formats/safetensors.h"

namespace inrush {
namespace {

constexpr std::array kTable{
    Format{"safetensors", recognises_safetensors, index_safetensors, true},
};

constexpr size_t kHeadSize = 16;    // bytes shown to recognises()
constexpr size_t kMostThreads = 8;  // headers on a far store come one round trip after the other
constexpr size_t kMostNamed = 5;    // in one error

std::string_view file_name(std::string_view entry) { return entry.substr(entry.rfind('/') + 1); }

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

// In a folder names decide: other files may lie beside a checkpoint's, and the heads of all of
// them need not be read.
Found find_by_name(const std::vector<std::string>& listing, const std::string& uri) {
  for (const auto& format : kTable) {
    Found found{&format, {}};
    for (const auto& entry : listing) {
      // ".x" and "._x" are leftovers of editors, downloads and macOS.
      if (file_name(entry).front() != '.' && format.recognises(entry, {})) {
        found.entries.push_back(entry);
      }
    }
    if (!found.entries.empty()) return found;
  }
  if (listing.empty()) throw Error(ErrorCode::data, fmt::format("open {}: no files in it", uri));
  throw Error(
      ErrorCode::data,
      fmt::format("open {}: none of its files is of a format that can be read (*.safetensors "
                  "is): {}",
                  uri, some_of(listing)));
}

// Files that were named must all be of one format; where the name says nothing, the head does.
Found find_by_head(Store& store, const std::vector<std::string>& entries) {
  Found found{nullptr, entries};
  for (const auto& entry : entries) {
    const auto recognised_by = [&](std::span<const std::byte> head) {
      return std::find_if(kTable.begin(), kTable.end(),
                          [&](const Format& row) { return row.recognises(entry, head); });
    };
    std::array<std::byte, kHeadSize> buffer;
    std::span<std::byte> head;
    std::string name = entry;
    const auto* row = recognised_by({});
    if (row == kTable.end()) {
      const Blob blob = store.open(entry);
      head = std::span(buffer).first(std::min<uint64_t>(blob.size, kHeadSize));
      store.read(blob, 0, head);
      name = blob.name;
      row = recognised_by(head);
    }
    if (row == kTable.end()) {
      throw Error(ErrorCode::data,
                  fmt::format("open {}: {}{}", name,
                              head.empty() ? "the file is empty"
                                           : "not of a format that can be read (safetensors is)",
                              seems_to_be(head)));
    }
    if (found.format != nullptr && found.format != &*row) {
      throw Error(ErrorCode::usage, fmt::format("open {}: {}, while the files before it are {}",
                                                name, row->name, found.format->name));
    }
    found.format = &*row;
  }
  return found;
}

// The files that an index file names, all of which must be there.
std::vector<std::string> files_of(Store& store, const std::string& entry, const HfIndex& index) {
  const std::string folder = entry.substr(0, entry.rfind('/') + 1);
  std::vector<std::string> listing;
  for (auto& listed : store.list()) listing.push_back(std::move(listed.name));
  std::vector<std::string> files;
  std::vector<std::string> missing;
  for (const auto& file : index.files) {
    files.push_back(folder + file);
    // What lies in a folder below is not listed; open() will say if it is not there.
    const bool below = file.find('/') != std::string::npos;
    const bool there = below || std::binary_search(listing.begin(), listing.end(), files.back());
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
  parallel_for(entries.size(), kMostThreads,
               [&](size_t i) { parts[i] = format->index(store, {entries[i]}); });
  return join(std::move(parts));
}

}  // namespace

std::span<const Format> format_table() { return kTable; }

Index read_index(Store& store, const std::vector<std::string>& entries) {
  std::vector<std::string> listing = entries;
  if (entries.empty()) {
    for (auto& listed : store.list()) listing.push_back(std::move(listed.name));
  }
  if (const auto entry = pick_hf_index(listing, store.uri())) {
    const HfIndex decided = read_hf_index(store, *entry);
    const auto files = files_of(store, *entry, decided);
    Index index = index_all(store, find_by_head(store, files));
    check_promises(decided, index);
    return index;
  }
  return index_all(
      store, entries.empty() ? find_by_name(listing, store.uri()) : find_by_head(store, entries));
}

}  // namespace inrush
