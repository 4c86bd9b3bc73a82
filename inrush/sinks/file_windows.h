// Windows onto files' own pages, each mapped for reading and registered with a device's driver, so
// that the device copies out of the page cache and the host copies nothing. The host never reads
// through them: what is registered is pinned, so a file that shrinks meanwhile is no SIGBUS, and
// what the device then reads is refused by the file's identity. One thread a window.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "inrush/core/region.h"
#include "inrush/shim/device.h"

namespace inrush {

class FileWindows {
 public:
  // Reserves address space, and nothing else. Throws Error{memory} where there is none.
  FileWindows(std::shared_ptr<const Device> device, uint64_t window_size, uint32_t windows);
  ~FileWindows();
  FileWindows(const FileWindows&) = delete;
  FileWindows& operator=(const FileWindows&) = delete;

  // Where these bytes of the file are from now on. nullptr: `refusal` says why not, and nothing has
  // changed. `size` is no more than a window's.
  std::byte* open(uint32_t window, int fd, uint64_t offset, uint64_t size, std::string& refusal);
  // No copy may read it any more. Does nothing where it is not open.
  void close(uint32_t window) noexcept;

  [[nodiscard]] Region region() const;

 private:
  [[nodiscard]] std::byte* at(uint32_t window) const { return base_ + window * window_size_; }

  std::shared_ptr<const Device> device_;
  uint64_t page_size_;
  uint64_t window_size_;
  std::byte* base_ = nullptr;
  std::vector<uint64_t> opened_;  // per window: bytes that are registered
};

}  // namespace inrush
