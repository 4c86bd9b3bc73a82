#include "inrush/engines/engines.h"

#include "inrush/engines/rows.h"

namespace inrush {

namespace {

std::string always_usable() { return {}; }

constexpr EngineRow kEngines[] = {
    {"uring", "io_uring, direct or through the page cache", false, uring_unusable, make_uring},
    {"aio", "Linux AIO; through the page cache it reads while submitting, one read at a time",
     false, aio_unusable, make_aio},
    {"pread", "positional reads on threads, direct or through the page cache", false, always_usable,
     make_pread},
    {"mmap", "populates mappings of the files: nothing is copied", false, always_usable, make_mmap},
    {"cufile", "GPUDirect Storage: into device memory past the host's, on threads", false,
     always_usable, make_cufile},
    {"http", "ranged requests over kept connections, for HTTP(S) and object stores", true,
     always_usable, make_http},
    {"cache", "copies of remote files on this machine, filled while they are read", true,
     always_usable, make_cache},
    {"redis", "GETRANGE on one connection, pipelined", true, always_usable, make_redis},
};

}  // namespace

std::span<const EngineRow> engine_table() { return kEngines; }

const EngineRow* find_engine(std::string_view name) {
  for (const EngineRow& row : kEngines) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

}  // namespace inrush
