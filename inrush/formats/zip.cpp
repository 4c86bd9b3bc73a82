// The parts of an archive that matter here, each found from the one below it; PK and two bytes:
//
//   1 2   a file's header: 46 bytes, its name, extra fields, a comment; one for each file
//   6 6   the 64-bit end: 56 bytes; where the headers begin, how many they are
//   6 7   where the 64-bit end lies: 20 bytes, directly before
//   5 6   the end: 22 bytes and a comment, the last of the archive; as 6 6 in 32 bits
//
// At the place that a header names stand 3 4, 30 bytes, name, extra fields, and then the bytes.
#include "inrush/formats/zip.h"
#include "inrush/formats/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/bytes.h"
#include "inrush/formats/guess.h"

namespace inrush {
namespace {

using namespace std::string_view_literals;

constexpr uint64_t kEndRecordSize = 22;
constexpr uint64_t kEnd64Size = 56;
constexpr uint64_t kPointerSize = 20;
constexpr uint64_t kLocalSize = 30;
constexpr uint64_t kLongestTail = kEndRecordSize + 65535 + kPointerSize;
constexpr uint64_t kLargestDirectory = 100'000'000;  // bytes
constexpr uint32_t kIn64 = 0xFFFFFFFF;               // the value is in 64 bits elsewhere

std::vector<std::byte> read(Store& store, const Blob& blob, uint64_t offset, uint64_t size) {
  std::vector<std::byte> bytes(size);
  store.read(blob, offset, bytes);
  return bytes;
}

struct Directory {
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t count = 0;
};

Directory find_directory_64(Store& store, const Blob& blob, uint64_t at) {
  if (at > blob.size || blob.size - at < kEnd64Size) {
    throw_at(blob.name, at, kEnd64Size, "the zip archive's 64-bit end lies outside the file");
  }
  const auto bytes = read(store, blob, at, kEnd64Size);
  Bytes end(bytes);
  if (end.text(4) != "PK\x06\x06"sv) {
    throw_at(blob.name, at, kEnd64Size, "no 64-bit end of a zip archive where one should be");
  }
  end.take(20);
  Directory directory;
  end.take(8);
  directory.count = end.number<uint64_t>();
  directory.size = end.number<uint64_t>();
  directory.offset = end.number<uint64_t>();
  return directory;
}

Directory find_directory(Store& store, const Blob& blob) {
  if (blob.size == 0) throw_at(blob.name, 0, 0, "the file is empty");
  const uint64_t tail_size = std::min(blob.size, kLongestTail);
  const uint64_t tail_offset = blob.size - tail_size;
  const auto tail = read(store, blob, tail_offset, tail_size);
  const std::string_view text(reinterpret_cast<const char*>(tail.data()), tail.size());
  size_t at = text.rfind("PK\x05\x06"sv);
  while (at != std::string_view::npos && text.size() - at < kEndRecordSize) {
    at = at == 0 ? std::string_view::npos : text.rfind("PK\x05\x06"sv, at - 1);
  }
  if (at == std::string_view::npos) {
    std::vector<std::byte> head = read(store, blob, 0, std::min<uint64_t>(blob.size, 32));
    const bool zip = text.starts_with("PK") || seems_to_be(head).find("zip") != std::string::npos;
    throw_at(blob.name, 0, blob.size,
             zip ? "the zip archive has no end: it is truncated"
                 : fmt::format("no zip archive, as torch.save writes{}", seems_to_be(head)));
  }
  Bytes end{std::span(tail).subspan(at)};
  end.take(10);
  Directory directory;
  directory.count = end.number<uint16_t>();
  directory.size = end.number<uint32_t>();
  directory.offset = end.number<uint32_t>();
  const bool in_64 =
      directory.count == 0xFFFF || directory.size == kIn64 || directory.offset == kIn64;
  if (in_64 && at >= kPointerSize && text.substr(at - kPointerSize, 4) == "PK\x06\x07"sv) {
    Bytes pointer{std::span(tail).subspan(at - kPointerSize)};
    pointer.take(8);
    return find_directory_64(store, blob, pointer.number<uint64_t>());
  }
  return directory;
}

// Values that did not fit 32 bits stand in the extra field 1, in this order.
void widen(Bytes extra, uint64_t& size, uint64_t& stored, uint64_t& header) {
  while (extra.left() >= 4) {
    const auto tag = extra.number<uint16_t>();
    Bytes field(extra.take(extra.number<uint16_t>()));
    if (tag != 1) continue;
    for (uint64_t* value : {&size, &stored, &header}) {
      if (*value == kIn64) *value = field.number<uint64_t>();
    }
    return;
  }
}

ZipEntry read_entry(Bytes& bytes) {
  if (bytes.text(4) != "PK\x01\x02"sv) bytes.fail("no header of a file where one should be");
  ZipEntry entry;
  bytes.take(4);
  const auto flags = bytes.number<uint16_t>();
  const auto method = bytes.number<uint16_t>();
  bytes.take(4);
  entry.crc32 = bytes.number<uint32_t>();
  uint64_t stored = bytes.number<uint32_t>();
  entry.size = bytes.number<uint32_t>();
  const auto name = bytes.number<uint16_t>();
  const auto extra = bytes.number<uint16_t>();
  const auto comment = bytes.number<uint16_t>();
  bytes.take(8);
  entry.header = bytes.number<uint32_t>();
  entry.name = bytes.text(name);
  widen(Bytes(bytes.take(extra)), entry.size, stored, entry.header);
  bytes.take(comment);
  entry.stored = method == 0 && (flags & 1) == 0 && stored == entry.size;
  return entry;
}

[[noreturn]] void refuse_overlap(const Blob& blob, const ZipEntry& entry) {
  throw_at(blob.name, entry.header, entry.size,
           fmt::format("entry {} of the zip archive reaches into the next one, into the directory, "
                       "or past the end of the file, which has {} bytes",
                       quoted(entry.name), blob.size));
}

// Entries lie one behind the other: bytes that are several entries' would be read many times over.
void set_limits(const Blob& blob, const Directory& directory, std::vector<ZipEntry>& entries) {
  std::vector<ZipEntry*> by_place(entries.size());
  std::transform(entries.begin(), entries.end(), by_place.begin(), [](auto& e) { return &e; });
  std::sort(by_place.begin(), by_place.end(), [](const ZipEntry* a, const ZipEntry* b) {
    return std::pair(a->header, a->size) < std::pair(b->header, b->size);
  });
  uint64_t limit = directory.offset;
  for (auto at = by_place.rbegin(); at != by_place.rend(); ++at) {
    ZipEntry& entry = **at;
    entry.limit = limit;
    if (entry.header > limit || limit - entry.header < kLocalSize) refuse_overlap(blob, entry);
    limit = entry.header;
  }
}

}  // namespace

std::vector<ZipEntry> read_zip(Store& store, const Blob& blob) {
  const Directory directory = find_directory(store, blob);
  if (directory.size > blob.size || directory.offset > blob.size - directory.size) {
    throw_at(blob.name, directory.offset, directory.size,
             fmt::format("the zip archive's directory reaches past the end of the file, which has "
                         "{} bytes",
                         blob.size));
  }
  if (directory.size > kLargestDirectory) {
    throw_at(blob.name, directory.offset, directory.size,
             fmt::format("a directory over the limit of {} bytes", kLargestDirectory));
  }
  const auto raw = read(store, blob, directory.offset, directory.size);
  Bytes bytes(raw);
  std::vector<ZipEntry> entries;
  try {
    while (entries.size() < directory.count) entries.push_back(read_entry(bytes));
  } catch (const BytesFault& fault) {
    throw_at(blob.name, directory.offset, directory.size,
             fmt::format("bad directory of a zip archive at byte {}: {}",
                         directory.offset + fault.offset, fault.reason));
  }
  set_limits(blob, directory, entries);
  return entries;
}

uint64_t offset_of(Store& store, const Blob& blob, const ZipEntry& entry) {
  const auto raw = read(store, blob, entry.header, kLocalSize);
  Bytes bytes(raw);
  if (bytes.text(4) != "PK\x03\x04"sv) {
    throw_at(blob.name, entry.header, kLocalSize,
             fmt::format("no header of entry {} of the zip archive", quoted(entry.name)));
  }
  bytes.take(22);
  const uint64_t names = uint64_t{bytes.number<uint16_t>()} + bytes.number<uint16_t>();
  const uint64_t begin = entry.header + kLocalSize + names;
  if (begin > entry.limit || entry.size > entry.limit - begin) refuse_overlap(blob, entry);
  return begin;
}

}  // namespace inrush
