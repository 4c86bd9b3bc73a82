// The functions of cuFile that are used here. Declarations of our own; a test compares them with
// the toolkit's where it is there.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace inrush::vendor {

using FileHandle = void*;  // CUfileHandle_t

// CUfileError_t. Numbers of cuFile's own are above the base.
struct FileStatus {
  int error = 0;
  int cuda = 0;
};
inline constexpr int kCuFileBase = 5000;
inline constexpr int kCuFileAlreadyOpen = 5026;

// CUfileDescr_t
struct FileDescription {
  int type = 0;
  union {
    int fd;
    void* handle;
  };
  const void* operations = nullptr;
};
inline constexpr int kFileDescriptor = 1;

// CUfileDrvProps_t
struct FileProperties {
  unsigned major_version = 0;
  unsigned minor_version = 0;
  size_t poll_size = 0;
  size_t largest_direct = 0;
  unsigned supported = 0;
  unsigned control = 0;
  unsigned features = 0;
  unsigned device_cache = 0;
  unsigned buffer_cache = 0;
  unsigned device_pinned = 0;
  unsigned batch = 0;
  unsigned batch_timeout = 0;
  uint64_t room[8] = {};  // NOLINT: a later library may know more of them
};
inline constexpr unsigned kControlCompatible = 1U << 1;
inline constexpr int kParameterCompatible = 1;
inline constexpr int kParameterForced = 2;  // it reads through host memory whatever it could do

struct FileTable {
  FileStatus (*open)();
  FileStatus (*version)(int* version);
  FileStatus (*properties)(FileProperties* properties);
  FileStatus (*set_parameter)(int parameter, bool value);   // nullptr before CUDA 12.9
  FileStatus (*get_parameter)(int parameter, bool* value);  // the same
  FileStatus (*handle_register)(FileHandle* handle, FileDescription* description);
  void (*handle_deregister)(FileHandle handle);
  FileStatus (*memory_register)(const void* memory, size_t size, int flags);
  FileStatus (*memory_deregister)(const void* memory);
  ssize_t (*read)(FileHandle handle, void* memory, size_t size, off_t offset, off_t memory_offset);
};

}  // namespace inrush::vendor
