// NVIDIA's cuFile, found at run time: storage writes into device memory without passing through the
// host's. Opened once in a process and left open, as others in it may use it too; it keeps no
// memory of a device by that. Any thread, in the context of the device that is read into.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "inrush/shim/cufile_table.h"

namespace inrush {

class CuFile {
 public:
  // With `compatible` the library may read through host memory where it can do no better; without
  // it is told not to, and refused where it would. Throws Error{usage}: no library, a symbol
  // missing, no kernel driver, or the library's own reason.
  explicit CuFile(bool compatible);

  // What starting the library's driver took, in seconds; nothing where it ran already.
  [[nodiscard]] std::optional<double> start_seconds() const { return start_seconds_; }

  // Throws Error{source} with the reason why this file cannot be read that way. The descriptor is
  // borrowed until it is removed.
  [[nodiscard]] vendor::FileHandle add_file(int fd, const std::string& name) const;
  void remove_file(vendor::FileHandle file) const noexcept;

  // Device memory that reads will target. Throws Error{memory}.
  void add_memory(uint64_t address, uint64_t size) const;
  void remove_memory(uint64_t address) const noexcept;

  // Bytes that were read, -errno, or what text_of() explains, negated.
  [[nodiscard]] int64_t read(vendor::FileHandle file, uint64_t base, uint64_t size, uint64_t offset,
                             uint64_t memory_offset) const;

 private:
  vendor::FileTable table_{};
  std::optional<double> start_seconds_;
};

// What a result of cuFile's own, negated or not, means.
std::string text_of_cufile(int result);
inline bool is_cufile_result(int64_t result) { return result <= -vendor::kCuFileBase; }

// The library alone: nothing is opened. Throws Error{usage}.
struct CuFileLibrary {
  std::string path;
  std::string version;  // "1.15"
};
CuFileLibrary find_cufile();

}  // namespace inrush
