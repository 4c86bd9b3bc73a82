// The functions of a GPU driver that are used here, as one table for both vendors: where CUDA's
// driver interface and HIP have the same signature they share a row. Declarations of our own, so
// that no vendor's headers are needed; a test compares them with the toolkit's where it is there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inrush::vendor {

using Result = int;               // CUresult, hipError_t: the numbers below are the same
using Address = uint64_t;         // CUdeviceptr; hipDeviceptr_t is a pointer, passed alike
using Stream = struct StreamOf*;  // CUstream, hipStream_t; nullptr: the default stream
using Event = struct EventOf*;
using Primary = struct PrimaryOf*;  // CUcontext

inline constexpr Result kSuccess = 0;
inline constexpr Result kInvalidValue = 1;
inline constexpr Result kOutOfMemory = 2;
inline constexpr Result kNotReady = 600;

inline constexpr unsigned kStreamNonBlocking = 1;
inline constexpr unsigned kEventBlockingSync = 1;
inline constexpr unsigned kEventDisableTiming = 2;
inline constexpr unsigned kHostRegisterPortable = 1;
inline constexpr unsigned kHostRegisterReadOnly = 8;
inline constexpr int kPointerHostAddress = 4;

// Numbers of attributes that differ.
struct Attributes {
  int integrated;
  int pageable_access;
  int host_page_tables;
  int max_pitch;
  int host_numa_node;      // -1: the vendor has none
  int read_only_register;  // -1: the vendor has none
};
inline constexpr Attributes kCudaAttributes{18, 88, 100, 11, 134, 113};
inline constexpr Attributes kHipAttributes{16, 65, 66, 58, -1, -1};

// CUDA_MEMCPY2D, version 2.
struct Copy2d {
  size_t source_x = 0;
  size_t source_y = 0;
  unsigned source_type = 0;
  const void* source_host = nullptr;
  Address source_device = 0;
  void* source_array = nullptr;
  size_t source_pitch = 0;
  size_t target_x = 0;
  size_t target_y = 0;
  unsigned target_type = 0;
  void* target_host = nullptr;
  Address target_device = 0;
  void* target_array = nullptr;
  size_t target_pitch = 0;
  size_t width = 0;
  size_t height = 0;
};
inline constexpr unsigned kMemoryHost = 1;
inline constexpr unsigned kMemoryDevice = 2;
inline constexpr int kCopyHostToDevice = 1;  // hipMemcpyKind

struct DeviceTable {
  Result (*init)(unsigned flags);
  Result (*driver_version)(int* version);
  Result (*device_count)(int* count);
  Result (*device_get)(int* device, int index);
  Result (*device_name)(char* name, int size, int device);
  Result (*device_attribute)(int* value, int attribute, int device);
  Result (*device_bus)(char* bus, int size, int device);
  Result (*mem_info)(size_t* free, size_t* total);
  Result (*mem_alloc)(Address* address, size_t size);
  Result (*mem_free)(Address address);
  Result (*host_register)(void* memory, size_t size, unsigned flags);
  Result (*host_unregister)(void* memory);
  Result (*pointer_attribute)(void* value, int attribute, Address address);
  Result (*stream_create)(Stream* stream, unsigned flags);
  Result (*stream_destroy)(Stream stream);
  Result (*stream_synchronize)(Stream stream);
  Result (*stream_wait_event)(Stream stream, Event event, unsigned flags);
  Result (*event_create)(Event* event, unsigned flags);
  Result (*event_destroy)(Event event);
  Result (*event_record)(Event event, Stream stream);
  Result (*event_query)(Event event);
  Result (*event_synchronize)(Event event);
  Result (*copy_to_device)(Address target, const void* source, size_t size, Stream stream);
  Result (*fill)(Address target, unsigned char value, size_t size, Stream stream);
  Result (*error_name)(Result result, const char** name);

  // CUDA's own. A thread has a stack of contexts.
  Result (*primary_retain)(Primary* primary, int device);
  Result (*primary_release)(int device);
  Result (*primary_push)(Primary primary);
  Result (*primary_pop)(Primary* primary);
  Result (*copy_2d)(const Copy2d* copy, Stream stream);
  Result (*copy_on_device)(Address target, Address source, size_t size, Stream stream);

  // HIP's own. A thread has a current device.
  Result (*get_device)(int* device);
  Result (*set_device)(int device);
  Result (*hip_copy_2d)(void* target, size_t target_pitch, const void* source, size_t source_pitch,
                        size_t width, size_t height, int kind, Stream stream);
};

}  // namespace inrush::vendor
