#include "inrush/policy/filesystem.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "inrush/base/direct_io.h"
#include "inrush/base/fd.h"
#include "inrush/base/filesystem.h"

namespace inrush {

namespace {

// Most direct-I/O implementations are content with this; a far filesystem is not asked by reading,
// because one read of it may take 20 ms. The engine finds out when it opens the file.
constexpr uint32_t kUsualDirectAlign = 4096;

// stx_attributes, 8 bytes in; STATX_ATTR_DAX: the file is mapped straight from memory.
constexpr size_t kStatxSize = 256;
constexpr size_t kAttributesAt = 8;
constexpr uint64_t kStatxDax = 0x00200000;

bool is_dax(int fd) {
  alignas(8) std::array<std::byte, kStatxSize> answer{};
  if (::syscall(SYS_statx, fd, "", AT_EMPTY_PATH, 0U, answer.data()) != 0) return false;
  uint64_t attributes = 0;
  std::memcpy(&attributes, answer.data() + kAttributesAt, sizeof attributes);
  return (attributes & kStatxDax) != 0;
}

void ask_direct(const Blob& blob, FilesystemFact& fact) {
  if (fact.memory) return;  // O_DIRECT may open there, but there is no device to go to
  if (fact.sequential) {
    fact.direct = true;
    fact.direct_memory_align = fact.direct_offset_align = kUsualDirectAlign;
    return;
  }
  const DirectIo direct = open_direct(blob.fd, blob.name);
  fact.direct = static_cast<bool>(direct.fd);
  if (!fact.direct) return;
  fact.direct_memory_align = direct.memory_align;
  fact.direct_offset_align = direct.offset_align;
}

// What the profile is keyed by. A tmpfs or overlay has a UUID, but a new one with each mount.
std::string identify(const Blob& blob, const FilesystemFact& fact, const std::string& source) {
  if (fact.memory || fact.type == "overlay") return fact.type;
  if (const std::string uuid = filesystem_uuid(blob.fd); !uuid.empty()) return uuid;
  if (const std::string model = device_model(blob.fd); !model.empty()) {
    return fmt::format("{} on {}", fact.type, model);
  }
  return source.empty() ? fact.type : fmt::format("{} of {}", fact.type, source);
}

}  // namespace

FilesystemFact ask_filesystem(const Blob& blob) {
  FilesystemFact fact;
  if (!blob.engine.empty()) {
    fact.engine = blob.engine;
    fact.id = blob.path;
    fact.type = blob.path.substr(0, blob.path.find(':'));
  }
  if (blob.fd < 0) return fact;
  const FilesystemKind kind = filesystem_of(blob.fd);
  fact.memory = kind.memory;
  fact.may_map = kind.may_map;
  fact.sequential = kind.sequential;
  fact.own_pages = kind.own_pages;
  fact.type = kind.type;
  std::string source;
  const bool known = !fact.type.empty();
  if (!known || fact.sequential) {
    // Only here is the mount table worth its price: it has the FUSE server's and NFS host's name.
    const Mount mount = mount_of(blob.fd);
    source = mount.source;
    if (!mount.type.empty()) {
      fact.type = mount.type;
    } else if (!known) {
      fact.type = fmt::format("0x{:x}", kind.magic);
    }
  }
  if (!fact.memory && known && !fact.sequential && is_dax(blob.fd)) fact.memory = true;
  ask_direct(blob, fact);
  fact.read_ahead_kib = fact.memory ? 0 : read_ahead_kib(blob.fd);
  fact.id = identify(blob, fact, source);
  return fact;
}

}  // namespace inrush
