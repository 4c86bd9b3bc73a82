// A Region is a piece of memory that engines may write into. A value; it owns nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inrush {

enum class MemoryKind : uint8_t { host, pinned, device };

enum class DeviceVendor : uint8_t { cuda, hip };

enum class Backing : uint8_t {
  anonymous,  // ours, private
  memfd,      // ours, can be exported to another process
  hugetlb,    // ours, huge pages
  mapping,    // a private mapping of the blob's own pages: reading it is populating it
  caller,     // the caller's
};

struct Region {
  std::byte* data = nullptr;
  uint64_t size = 0;
  MemoryKind kind = MemoryKind::host;
  Backing backing = Backing::anonymous;
  int device = -1;          // index of the device, -1 for the host
  bool exportable = false;  // another process or a NIC may be given access
  uint32_t id = 0;          // unique in one load: engines key their registrations by it
};

}  // namespace inrush
