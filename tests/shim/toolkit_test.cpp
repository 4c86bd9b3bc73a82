// Our declarations of CUDA's driver against the toolkit's own headers: compiled where cuda.h is
// installed.
#include <cuda.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <type_traits>

#include "inrush/shim/device_table.h"
#include "tests/shim/alike.h"

namespace inrush::vendor {
namespace {

using test::Alike;

static_assert(sizeof(Copy2d) == sizeof(CUDA_MEMCPY2D));
static_assert(offsetof(Copy2d, source_type) == offsetof(CUDA_MEMCPY2D, srcMemoryType));
static_assert(offsetof(Copy2d, source_host) == offsetof(CUDA_MEMCPY2D, srcHost));
static_assert(offsetof(Copy2d, source_pitch) == offsetof(CUDA_MEMCPY2D, srcPitch));
static_assert(offsetof(Copy2d, target_type) == offsetof(CUDA_MEMCPY2D, dstMemoryType));
static_assert(offsetof(Copy2d, target_device) == offsetof(CUDA_MEMCPY2D, dstDevice));
static_assert(offsetof(Copy2d, target_pitch) == offsetof(CUDA_MEMCPY2D, dstPitch));
static_assert(offsetof(Copy2d, width) == offsetof(CUDA_MEMCPY2D, WidthInBytes));
static_assert(offsetof(Copy2d, height) == offsetof(CUDA_MEMCPY2D, Height));
static_assert(std::is_same_v<Address, uint64_t> && sizeof(CUdeviceptr) == sizeof(Address));
static_assert(sizeof(CUresult) == sizeof(Result) && sizeof(CUdevice) == sizeof(int));
static_assert(kSuccess == CUDA_SUCCESS && kInvalidValue == CUDA_ERROR_INVALID_VALUE);
static_assert(kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(kNotReady == CUDA_ERROR_NOT_READY);
static_assert(kStreamNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kEventBlockingSync == CU_EVENT_BLOCKING_SYNC);
static_assert(kEventDisableTiming == CU_EVENT_DISABLE_TIMING);
static_assert(kHostRegisterPortable == CU_MEMHOSTREGISTER_PORTABLE);
static_assert(kHostRegisterReadOnly == CU_MEMHOSTREGISTER_READ_ONLY);
static_assert(kPointerHostAddress == CU_POINTER_ATTRIBUTE_HOST_POINTER);
static_assert(kMemoryHost == CU_MEMORYTYPE_HOST && kMemoryDevice == CU_MEMORYTYPE_DEVICE);
static_assert(kCudaAttributes.integrated == CU_DEVICE_ATTRIBUTE_INTEGRATED);
static_assert(kCudaAttributes.pageable_access == CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS);
static_assert(kCudaAttributes.host_page_tables ==
              CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES);
static_assert(kCudaAttributes.max_pitch == CU_DEVICE_ATTRIBUTE_MAX_PITCH);
static_assert(kCudaAttributes.host_numa_node == CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID);
static_assert(kCudaAttributes.read_only_register ==
              CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED);

static_assert(Alike<decltype(DeviceTable::init), decltype(cuInit)>::value);
static_assert(Alike<decltype(DeviceTable::driver_version), decltype(cuDriverGetVersion)>::value);
static_assert(Alike<decltype(DeviceTable::device_count), decltype(cuDeviceGetCount)>::value);
static_assert(Alike<decltype(DeviceTable::device_get), decltype(cuDeviceGet)>::value);
static_assert(Alike<decltype(DeviceTable::device_name), decltype(cuDeviceGetName)>::value);
static_assert(
    Alike<decltype(DeviceTable::device_attribute), decltype(cuDeviceGetAttribute)>::value);
static_assert(Alike<decltype(DeviceTable::device_bus), decltype(cuDeviceGetPCIBusId)>::value);
static_assert(Alike<decltype(DeviceTable::mem_info), decltype(cuMemGetInfo)>::value);
static_assert(Alike<decltype(DeviceTable::mem_alloc), decltype(cuMemAlloc)>::value);
static_assert(Alike<decltype(DeviceTable::mem_free), decltype(cuMemFree)>::value);
static_assert(Alike<decltype(DeviceTable::host_register), decltype(cuMemHostRegister)>::value);
static_assert(Alike<decltype(DeviceTable::host_unregister), decltype(cuMemHostUnregister)>::value);
static_assert(
    Alike<decltype(DeviceTable::pointer_attribute), decltype(cuPointerGetAttribute)>::value);
static_assert(Alike<decltype(DeviceTable::stream_create), decltype(cuStreamCreate)>::value);
static_assert(Alike<decltype(DeviceTable::stream_destroy), decltype(cuStreamDestroy)>::value);
static_assert(
    Alike<decltype(DeviceTable::stream_synchronize), decltype(cuStreamSynchronize)>::value);
static_assert(Alike<decltype(DeviceTable::stream_wait_event), decltype(cuStreamWaitEvent)>::value);
static_assert(Alike<decltype(DeviceTable::event_create), decltype(cuEventCreate)>::value);
static_assert(Alike<decltype(DeviceTable::event_destroy), decltype(cuEventDestroy)>::value);
static_assert(Alike<decltype(DeviceTable::event_record), decltype(cuEventRecord)>::value);
static_assert(Alike<decltype(DeviceTable::event_query), decltype(cuEventQuery)>::value);
static_assert(Alike<decltype(DeviceTable::event_synchronize), decltype(cuEventSynchronize)>::value);
static_assert(Alike<decltype(DeviceTable::copy_to_device), decltype(cuMemcpyHtoDAsync)>::value);
static_assert(Alike<decltype(DeviceTable::copy_on_device), decltype(cuMemcpyDtoDAsync)>::value);
static_assert(Alike<decltype(DeviceTable::fill), decltype(cuMemsetD8Async)>::value);
static_assert(Alike<decltype(DeviceTable::error_name), decltype(cuGetErrorName)>::value);
static_assert(
    Alike<decltype(DeviceTable::primary_retain), decltype(cuDevicePrimaryCtxRetain)>::value);
static_assert(
    Alike<decltype(DeviceTable::primary_release), decltype(cuDevicePrimaryCtxRelease)>::value);
static_assert(Alike<decltype(DeviceTable::primary_push), decltype(cuCtxPushCurrent)>::value);
static_assert(Alike<decltype(DeviceTable::primary_pop), decltype(cuCtxPopCurrent)>::value);
static_assert(Alike<decltype(DeviceTable::copy_2d), decltype(cuMemcpy2DAsync)>::value);

TEST(Toolkit, our_declarations_are_those_of_its_headers) { SUCCEED(); }

}  // namespace
}  // namespace inrush::vendor
