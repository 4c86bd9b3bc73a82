// What libamdhip64.so exports, as far as it is used.
#include <cstdio>
#include <cstring>

#include "tests/fake_driver/machine.h"

namespace {

using fake::Event;
using fake::kOk;
using fake::machine;
using fake::Result;
using fake::Stream;

thread_local int current = 0;

bool exists(int device) { return device >= 0 && device < machine().setting("devices"); }

// What the function returns, or kOk and the stream.
Result enter_on(const char* call, Stream*& stream) {
  if (const Result result = machine().enter(call)) return result;
  stream = machine().stream_of(stream, current);
  return stream == nullptr ? fake::kInvalidHandle : kOk;
}

}  // namespace

extern "C" {

Result hipInit(unsigned) { return machine().enter("hipInit"); }

Result hipDriverGetVersion(int* version) {
  *version = static_cast<int>(machine().setting("hip_version"));
  return machine().enter("hipDriverGetVersion");
}

Result hipGetDeviceCount(int* count) {
  *count = static_cast<int>(machine().setting("devices"));
  return *count == 0 ? fake::kNoDevice : machine().enter("hipGetDeviceCount");
}

Result hipDeviceGet(int* device, int index) {
  *device = index;
  return exists(index) ? machine().enter("hipDeviceGet") : fake::kInvalidDevice;
}

Result hipDeviceGetName(char* name, int size, int device) {
  std::snprintf(name, static_cast<size_t>(size), "Fake APU %d", device);
  return machine().enter("hipDeviceGetName");
}

Result hipDeviceGetPCIBusId(char* bus, int size, int device) {
  std::snprintf(bus, static_cast<size_t>(size), "FFFF:%02x:00.0", device);
  return machine().enter("hipDeviceGetPCIBusId");
}

Result hipDeviceGetAttribute(int* value, int attribute, int) {
  *value = 0;
  if (attribute == 16) *value = static_cast<int>(machine().setting("integrated"));
  if (attribute == 58) *value = 2147483647;
  return machine().enter("hipDeviceGetAttribute");
}

Result hipDrvGetErrorName(Result result, const char** name) {
  *name = result == fake::kOutOfMemory ? "hipErrorOutOfMemory" : "hipErrorUnknown";
  return kOk;
}

Result hipGetDevice(int* device) {
  *device = current;
  return machine().enter("hipGetDevice");
}

Result hipSetDevice(int device) {
  if (const Result result = machine().enter("hipSetDevice")) return result;
  if (!exists(device)) return fake::kInvalidDevice;
  machine().touch(device);
  current = device;
  return kOk;
}

Result hipMemGetInfo(size_t* free, size_t* total) {
  machine().room(current, free, total);
  return machine().enter("hipMemGetInfo");
}

Result hipMalloc(void** address, size_t size) {
  if (const Result result = machine().enter("hipMalloc")) return result;
  return machine().allocate(current, reinterpret_cast<uint64_t*>(address), size);
}

Result hipFree(void* address) {
  const Result result = machine().enter("hipFree");
  const Result freed = machine().free(reinterpret_cast<uint64_t>(address));
  return result != kOk ? result : freed;
}

Result hipHostRegister(void* memory, size_t size, unsigned flags) {
  if (const Result result = machine().enter("hipHostRegister")) return result;
  return machine().pin(memory, size, flags);
}

Result hipHostUnregister(void* memory) {
  const Result result = machine().enter("hipHostUnregister");
  const Result unpinned = machine().unpin(memory);
  return result != kOk ? result : unpinned;
}

Result hipPointerGetAttribute(void* value, int attribute, void* address) {
  if (const Result result = machine().enter("hipPointerGetAttribute")) return result;
  const bool shared = machine().setting("integrated") != 0;
  if (attribute != 4 || !shared) return fake::kInvalidValue;
  *static_cast<void**>(value) = address;
  return kOk;
}

Result hipStreamCreateWithFlags(Stream** stream, unsigned) {
  if (const Result result = machine().enter("hipStreamCreateWithFlags")) return result;
  *stream = machine().make_stream(current, false);
  return kOk;
}

Result hipStreamDestroy(Stream* stream) {
  machine().enter("hipStreamDestroy");
  return machine().destroy(stream);
}

Result hipStreamSynchronize(Stream* stream) {
  const Result result = enter_on("hipStreamSynchronize", stream);
  if (stream != nullptr) machine().synchronize(stream);
  return result;
}

Result hipStreamWaitEvent(Stream* stream, Event* event, unsigned) {
  const Result result = enter_on("hipStreamWaitEvent", stream);
  return result != kOk ? result : machine().wait(stream, event);
}

Result hipEventCreateWithFlags(Event** event, unsigned) {
  if (const Result result = machine().enter("hipEventCreateWithFlags")) return result;
  *event = machine().make_event(current);
  return kOk;
}

Result hipEventDestroy(Event* event) {
  machine().enter("hipEventDestroy");
  return machine().destroy(event);
}

Result hipEventRecord(Event* event, Stream* stream) {
  const Result result = enter_on("hipEventRecord", stream);
  return result != kOk ? result : machine().record(event, stream);
}

Result hipEventQuery(Event* event) {
  if (const Result result = machine().enter("hipEventQuery")) return result;
  return machine().query(event);
}

Result hipEventSynchronize(Event* event) {
  if (const Result result = machine().enter("hipEventSynchronize")) return result;
  return machine().synchronize(event);
}

Result hipMemcpyHtoDAsync(void* target, const void* source, size_t size, Stream* stream) {
  if (const Result result = enter_on("hipMemcpyHtoDAsync", stream)) return result;
  fake::Rows rows;
  rows.target = reinterpret_cast<uint64_t>(target);
  rows.source = static_cast<const std::byte*>(source);
  rows.row_size = size;
  return machine().copy(rows, stream);
}

Result hipMemcpy2DAsync(void* target, size_t target_pitch, const void* source, size_t source_pitch,
                        size_t width, size_t height, int kind, Stream* stream) {
  if (const Result result = enter_on("hipMemcpy2DAsync", stream)) return result;
  if (kind != 1 || target_pitch < width || source_pitch < width) return fake::kInvalidValue;
  fake::Rows rows;
  rows.target = reinterpret_cast<uint64_t>(target);
  rows.source = static_cast<const std::byte*>(source);
  rows.row_size = width;
  rows.rows = height;
  rows.target_pitch = target_pitch;
  rows.source_pitch = source_pitch;
  return machine().copy(rows, stream);
}

Result hipMemsetD8Async(void* target, unsigned char value, size_t size, Stream* stream) {
  if (const Result result = enter_on("hipMemsetD8Async", stream)) return result;
  return machine().fill(reinterpret_cast<uint64_t>(target), value, size, stream, 0);
}

}  // extern "C"
