// What libcuda.so.1 exports, as far as it is used.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "tests/fake_driver/files.h"
#include "tests/fake_driver/machine.h"

namespace {

using fake::Event;
using fake::kOk;
using fake::machine;
using fake::Result;
using fake::Stream;

struct Copy2d {
  size_t source_x, source_y;
  unsigned source_type;
  const std::byte* source_host;
  uint64_t source_device;
  void* source_array;
  size_t source_pitch, target_x, target_y;
  unsigned target_type;
  void* target_host;
  uint64_t target_device;
  void* target_array;
  size_t target_pitch, width, height;
};
constexpr size_t kMostPitch = 2147483647;

// Contexts are devices + 1, so that none of them is 0.
std::vector<intptr_t>& contexts() {
  thread_local std::vector<intptr_t> stack;
  return stack;
}

}  // namespace

// The device of the context that this thread is in; -1: it is in none.
int fake::current_device() {
  return contexts().empty() ? -1 : static_cast<int>(contexts().back()) - 1;
}

namespace {

int current() { return fake::current_device(); }

bool exists(int device) { return device >= 0 && device < machine().setting("devices"); }

// In a context; else what the function returns.
Result enter_inside(const char* call) {
  if (const Result result = machine().enter(call)) return result;
  return current() < 0 ? fake::kNoneEntered : kOk;
}

}  // namespace

extern "C" {

Result cuInit(unsigned) {
  if (const Result result = machine().enter("cuInit")) return result;
  return machine().setting("devices") == 0 ? fake::kNoDevice : kOk;
}

Result cuDriverGetVersion(int* version) {
  if (const Result result = machine().enter("cuDriverGetVersion")) return result;
  *version = static_cast<int>(machine().setting("cuda_version"));
  return kOk;
}

Result cuDeviceGetCount(int* count) {
  if (const Result result = machine().enter("cuDeviceGetCount")) return result;
  *count = static_cast<int>(machine().setting("devices"));
  return kOk;
}

Result cuDeviceGet(int* device, int index) {
  if (const Result result = machine().enter("cuDeviceGet")) return result;
  *device = index;
  return exists(index) ? kOk : fake::kInvalidDevice;
}

Result cuDeviceGetName(char* name, int size, int device) {
  if (const Result result = machine().enter("cuDeviceGetName")) return result;
  std::snprintf(name, static_cast<size_t>(size), "Fake GPU %d", device);
  return exists(device) ? kOk : fake::kInvalidDevice;
}

Result cuDeviceGetPCIBusId(char* bus, int size, int device) {
  if (const Result result = machine().enter("cuDeviceGetPCIBusId")) return result;
  std::snprintf(bus, static_cast<size_t>(size), "FFFF:%02x:00.0", device);
  return kOk;
}

Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (const Result result = machine().enter("cuDeviceGetAttribute")) return result;
  if (!exists(device)) return fake::kInvalidDevice;
  switch (attribute) {
    case 18:  // integrated
      *value = static_cast<int>(machine().setting("integrated"));
      return kOk;
    case 11:
      *value = static_cast<int>(kMostPitch);
      return kOk;
    case 113:
      *value = static_cast<int>(machine().setting("read_only"));
      return kOk;
    case 134:
      *value = static_cast<int>(machine().setting("numa_node"));
      return kOk;
    case 88:
    case 100:
      *value = 0;
      return kOk;
    default:
      return fake::kInvalidValue;
  }
}

Result cuGetErrorName(Result result, const char** name) {
  switch (result) {
    case 2:
      *name = "CUDA_ERROR_OUT_OF_MEMORY";
      return kOk;
    case 100:
      *name = "CUDA_ERROR_NO_DEVICE";
      return kOk;
    case 719:
      *name = "CUDA_ERROR_LAUNCH_FAILED";
      return kOk;
    default:
      *name = "CUDA_ERROR_UNKNOWN";
      return kOk;
  }
}

Result cuDevicePrimaryCtxRetain(intptr_t* primary, int device) {
  if (const Result result = machine().enter("cuDevicePrimaryCtxRetain")) return result;
  if (!exists(device)) return fake::kInvalidDevice;
  *primary = device + 1;
  return machine().retain(device, 1);
}

Result cuDevicePrimaryCtxRelease_v2(int device) {
  machine().enter("cuDevicePrimaryCtxRelease_v2");
  return machine().retain(device, -1);
}

Result cuCtxPushCurrent_v2(intptr_t primary) {
  if (const Result result = machine().enter("cuCtxPushCurrent_v2")) return result;
  contexts().push_back(primary);
  return kOk;
}

Result cuCtxPopCurrent_v2(intptr_t* primary) {
  machine().enter("cuCtxPopCurrent_v2");
  if (contexts().empty()) return fake::kNoneEntered;
  *primary = contexts().back();
  contexts().pop_back();
  return kOk;
}

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  if (const Result result = enter_inside("cuMemGetInfo_v2")) return result;
  machine().room(current(), free, total);
  return kOk;
}

Result cuMemAlloc_v2(uint64_t* address, size_t size) {
  if (const Result result = enter_inside("cuMemAlloc_v2")) return result;
  return machine().allocate(current(), address, size);
}

// Giving back works even when the device is gone, as far as the ledger is concerned.
Result cuMemFree_v2(uint64_t address) {
  const Result result = machine().enter("cuMemFree_v2");
  const Result freed = machine().free(address);
  return result != kOk ? result : freed;
}

Result cuMemHostRegister_v2(void* memory, size_t size, unsigned flags) {
  if (const Result result = enter_inside("cuMemHostRegister_v2")) return result;
  return machine().pin(memory, size, flags);
}

Result cuMemHostUnregister(void* memory) {
  const Result result = machine().enter("cuMemHostUnregister");
  const Result unpinned = machine().unpin(memory);
  return result != kOk ? result : unpinned;
}

Result cuPointerGetAttribute(void* value, int attribute, uint64_t address) {
  if (const Result result = enter_inside("cuPointerGetAttribute")) return result;
  const bool shared = machine().setting("integrated") != 0;
  if (attribute != 4 || !shared || machine().alias_of(address, 1) == nullptr) {
    return fake::kInvalidValue;
  }
  *static_cast<void**>(value) = reinterpret_cast<void*>(address);
  return kOk;
}

Result cuStreamCreate(Stream** stream, unsigned) {
  if (const Result result = enter_inside("cuStreamCreate")) return result;
  *stream = machine().make_stream(current(), false);
  return kOk;
}

Result cuStreamDestroy_v2(Stream* stream) {
  machine().enter("cuStreamDestroy_v2");
  return machine().destroy(stream);
}

Result cuStreamSynchronize(Stream* stream) {
  const Result result = enter_inside("cuStreamSynchronize");
  Stream* const known = machine().stream_of(stream, std::max(current(), 0));
  if (known == nullptr) return fake::kInvalidHandle;
  machine().synchronize(known);  // what is lost stops too
  return result;
}

Result cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
  if (const Result result = enter_inside("cuStreamWaitEvent")) return result;
  Stream* const known = machine().stream_of(stream, current());
  return known == nullptr ? fake::kInvalidHandle : machine().wait(known, event);
}

Result cuEventCreate(Event** event, unsigned) {
  if (const Result result = enter_inside("cuEventCreate")) return result;
  *event = machine().make_event(current());
  return kOk;
}

Result cuEventDestroy_v2(Event* event) {
  machine().enter("cuEventDestroy_v2");
  return machine().destroy(event);
}

Result cuEventRecord(Event* event, Stream* stream) {
  if (const Result result = enter_inside("cuEventRecord")) return result;
  Stream* const known = machine().stream_of(stream, current());
  return known == nullptr ? fake::kInvalidHandle : machine().record(event, known);
}

Result cuEventQuery(Event* event) {
  if (const Result result = machine().enter("cuEventQuery")) return result;
  return machine().query(event);
}

Result cuEventSynchronize(Event* event) {
  if (const Result result = machine().enter("cuEventSynchronize")) return result;
  return machine().synchronize(event);
}

Result cuMemcpyHtoDAsync_v2(uint64_t target, const void* source, size_t size, Stream* stream) {
  if (const Result result = enter_inside("cuMemcpyHtoDAsync_v2")) return result;
  Stream* const known = machine().stream_of(stream, current());
  if (known == nullptr) return fake::kInvalidHandle;
  fake::Rows rows;
  rows.target = target;
  rows.source = static_cast<const std::byte*>(source);
  rows.row_size = size;
  return machine().copy(rows, known);
}

Result cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t size, Stream* stream) {
  if (const Result result = enter_inside("cuMemcpyDtoDAsync_v2")) return result;
  Stream* const known = machine().stream_of(stream, current());
  if (known == nullptr) return fake::kInvalidHandle;
  fake::Rows rows;
  rows.target = target;
  rows.source = reinterpret_cast<const std::byte*>(source);
  rows.row_size = size;
  return machine().copy_on_device(rows, known);
}

Result cuMemcpy2DAsync_v2(const Copy2d* copy, Stream* stream) {
  if (const Result result = enter_inside("cuMemcpy2DAsync_v2")) return result;
  Stream* const known = machine().stream_of(stream, current());
  if (known == nullptr) return fake::kInvalidHandle;
  const bool on_device = copy->source_type == 2;
  const bool sound = (copy->source_type == 1 || on_device) && copy->target_type == 2 &&
                     copy->source_pitch >= copy->width && copy->target_pitch >= copy->width &&
                     copy->source_pitch <= kMostPitch && copy->target_pitch <= kMostPitch;
  constexpr size_t kOfAllocPitch = 512;
  const bool any_pitch = !on_device || machine().setting("any_pitch") != 0 ||
                         (copy->source_pitch | copy->target_pitch) % kOfAllocPitch == 0;
  if (!sound || !any_pitch) return fake::kInvalidValue;
  fake::Rows rows;
  rows.target = copy->target_device;
  rows.source =
      on_device ? reinterpret_cast<const std::byte*>(copy->source_device) : copy->source_host;
  rows.row_size = copy->width;
  rows.rows = copy->height;
  rows.target_pitch = copy->target_pitch;
  rows.source_pitch = copy->source_pitch;
  return on_device ? machine().copy_on_device(rows, known) : machine().copy(rows, known);
}

Result cuMemsetD8Async(uint64_t target, unsigned char value, size_t size, Stream* stream) {
  if (const Result result = enter_inside("cuMemsetD8Async")) return result;
  Stream* const known = machine().stream_of(stream, current());
  if (known == nullptr) return fake::kInvalidHandle;
  return machine().fill(target, value, size, known, 0);
}

}  // extern "C"
