#include "inrush/shim/device_driver.h"

#include <fmt/format.h>

#include <array>

#include "inrush/base/environment.h"
#include "inrush/base/numa.h"
#include "inrush/shim/library.h"

namespace inrush {
namespace {

constexpr int kLeastCuda = 12000;      // 12.0
constexpr int kLeastHip = 50'000'000;  // 5.0

Library open_driver(DeviceVendor vendor) {
  const Environment environment = read_environment();
  if (vendor == DeviceVendor::cuda) {
    return Library::open({"libcuda.so.1"}, environment.cuda_library);
  }
  // ROCm's runtime is no driver but a library that keeps all it knows to itself, and torch's wheels
  // bring their own: another one beside it takes its streams for garbage. The one loaded last is
  // the framework's, where one was loaded for inrush.doctor() before that.
  if (environment.hip_library.empty()) {
    if (const auto loaded = Library::find_loaded("libamdhip64")) return *loaded;
  }
  return Library::open({"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"},
                       environment.hip_library);
}

}  // namespace

std::string_view name_of(DeviceVendor vendor) {
  return vendor == DeviceVendor::cuda ? "cuda" : "hip";
}

void DeviceDriver::bind_cuda() {
  const Library library = open_driver(DeviceVendor::cuda);
  library_ = library.path();
  attributes_ = vendor::kCudaAttributes;
  vendor::DeviceTable& t = table_;
  library.bind("cuInit", t.init);
  library.bind("cuDriverGetVersion", t.driver_version);
  library.bind("cuDeviceGetCount", t.device_count);
  library.bind("cuDeviceGet", t.device_get);
  library.bind("cuDeviceGetName", t.device_name);
  library.bind("cuDeviceGetAttribute", t.device_attribute);
  library.bind("cuDeviceGetPCIBusId", t.device_bus);
  library.bind("cuMemGetInfo_v2", t.mem_info);
  library.bind("cuMemAlloc_v2", t.mem_alloc);
  library.bind("cuMemFree_v2", t.mem_free);
  library.bind("cuMemHostRegister_v2", t.host_register);
  library.bind("cuMemHostUnregister", t.host_unregister);
  library.bind("cuPointerGetAttribute", t.pointer_attribute);
  library.bind("cuStreamCreate", t.stream_create);
  library.bind("cuStreamDestroy_v2", t.stream_destroy);
  library.bind("cuStreamSynchronize", t.stream_synchronize);
  library.bind("cuStreamWaitEvent", t.stream_wait_event);
  library.bind("cuEventCreate", t.event_create);
  library.bind("cuEventDestroy_v2", t.event_destroy);
  library.bind("cuEventRecord", t.event_record);
  library.bind("cuEventQuery", t.event_query);
  library.bind("cuEventSynchronize", t.event_synchronize);
  library.bind("cuMemcpyHtoDAsync_v2", t.copy_to_device);
  library.bind("cuMemcpyDtoDAsync_v2", t.copy_on_device);
  library.bind("cuMemsetD8Async", t.fill);
  library.bind("cuGetErrorName", t.error_name);
  library.bind("cuDevicePrimaryCtxRetain", t.primary_retain);
  library.bind("cuDevicePrimaryCtxRelease_v2", t.primary_release);
  library.bind("cuCtxPushCurrent_v2", t.primary_push);
  library.bind("cuCtxPopCurrent_v2", t.primary_pop);
  library.bind("cuMemcpy2DAsync_v2", t.copy_2d);
}

void DeviceDriver::bind_hip() {
  const Library library = open_driver(DeviceVendor::hip);
  library_ = library.path();
  attributes_ = vendor::kHipAttributes;
  vendor::DeviceTable& t = table_;
  library.bind("hipInit", t.init);
  library.bind("hipDriverGetVersion", t.driver_version);
  library.bind("hipGetDeviceCount", t.device_count);
  library.bind("hipDeviceGet", t.device_get);
  library.bind("hipDeviceGetName", t.device_name);
  library.bind("hipDeviceGetAttribute", t.device_attribute);
  library.bind("hipDeviceGetPCIBusId", t.device_bus);
  library.bind("hipMemGetInfo", t.mem_info);
  library.bind("hipMalloc", t.mem_alloc);
  library.bind("hipFree", t.mem_free);
  library.bind("hipHostRegister", t.host_register);
  library.bind("hipHostUnregister", t.host_unregister);
  library.bind("hipPointerGetAttribute", t.pointer_attribute);
  library.bind("hipStreamCreateWithFlags", t.stream_create);
  library.bind("hipStreamDestroy", t.stream_destroy);
  library.bind("hipStreamSynchronize", t.stream_synchronize);
  library.bind("hipStreamWaitEvent", t.stream_wait_event);
  library.bind("hipEventCreateWithFlags", t.event_create);
  library.bind("hipEventDestroy", t.event_destroy);
  library.bind("hipEventRecord", t.event_record);
  library.bind("hipEventQuery", t.event_query);
  library.bind("hipEventSynchronize", t.event_synchronize);
  library.bind("hipMemcpyHtoDAsync", t.copy_to_device);
  library.bind("hipMemsetD8Async", t.fill);
  library.bind("hipGetDevice", t.get_device);
  library.bind("hipSetDevice", t.set_device);
  library.bind("hipMemcpy2DAsync", t.hip_copy_2d);
  // ROCm 5.4 and later: without it errors are numbers.
  t.error_name = reinterpret_cast<decltype(t.error_name)>(library.find("hipDrvGetErrorName"));
}

// Throws the reason as Error{usage}, whatever the driver's own answer was.
void DeviceDriver::start() {
  const auto ask = [this](vendor::Result result, const char* what) {
    if (result == vendor::kSuccess) return;
    const std::string where = fmt::format("{} of {}", what, library_);
    throw Error(ErrorCode::usage, error(where, result).message());
  };
  ask(table_.init(0), "start the driver");
  ask(table_.driver_version(&version_), "ask for the version");
  const bool cuda = vendor_ == DeviceVendor::cuda;
  if (version_ < (cuda ? kLeastCuda : kLeastHip)) {
    throw Error(
        ErrorCode::usage,
        fmt::format("the driver at {} is too old: it supports {} {}, {} is needed", library_,
                    cuda ? "CUDA" : "HIP", version_text(), cuda ? "12.0" : "5.0"));
  }
  ask(table_.device_count(&device_count_), "count the devices");
  if (device_count_ == 0) {
    throw Error(ErrorCode::usage,
                fmt::format("the driver at {} shows no device to this process", library_));
  }
}

std::shared_ptr<const DeviceDriver> DeviceDriver::load(DeviceVendor vendor) {
  std::shared_ptr<DeviceDriver> driver(new DeviceDriver);
  driver->vendor_ = vendor;
  vendor == DeviceVendor::cuda ? driver->bind_cuda() : driver->bind_hip();
  driver->start();
  return driver;
}

std::string DeviceDriver::version_text() const {
  if (vendor_ == DeviceVendor::cuda) {
    return fmt::format("{}.{}", version_ / 1000, version_ % 1000 / 10);
  }
  return fmt::format("{}.{}", version_ / 10'000'000, version_ / 100'000 % 100);
}

std::string DeviceDriver::name_of(int device) const {
  return fmt::format("{}:{}", inrush::name_of(vendor_), device);
}

void DeviceDriver::check_index(int device) const {
  if (device >= 0 && device < device_count_) return;
  throw Error(ErrorCode::usage, fmt::format("device {}: there are {} devices, from 0 on",
                                            name_of(device), device_count_));
}

// 0 where the driver does not know it: an attribute may be younger than the driver.
int DeviceDriver::attribute(int number, int device) const {
  int value = 0;
  return table_.device_attribute(&value, number, device) == vendor::kSuccess ? value : 0;
}

int DeviceDriver::handle_of(int index) const {
  check_index(index);
  int device = 0;
  check(table_.device_get(&device, index), "find " + name_of(index));
  return device;
}

DeviceFact DeviceDriver::describe(int index, const std::string& root) const {
  const int device = handle_of(index);
  DeviceFact fact;
  std::array<char, 256> text{};
  check(table_.device_name(text.data(), text.size() - 1, device), "name " + name_of(index));
  fact.name = text.data();
  text = {};
  if (table_.device_bus(text.data(), text.size() - 1, device) == vendor::kSuccess) {
    fact.bus = text.data();
  }
  fact.integrated = attribute(attributes_.integrated, device) != 0;
  fact.coherent = attribute(attributes_.pageable_access, device) != 0 &&
                  attribute(attributes_.host_page_tables, device) != 0;
  fact.max_pitch = static_cast<uint64_t>(attribute(attributes_.max_pitch, device));
  fact.read_only =
      attributes_.read_only_register >= 0 && attribute(attributes_.read_only_register, device) != 0;
  int node = -1;
  const bool told =
      attributes_.host_numa_node >= 0 &&
      table_.device_attribute(&node, attributes_.host_numa_node, device) == vendor::kSuccess;
  // Where the vendor does not say, the kernel knows the node of a PCI device.
  fact.numa_node = told && node >= 0 ? node : numa_node_of_pci(fact.bus, root);
  return fact;
}

Error DeviceDriver::error(std::string_view what, vendor::Result result) const {
  const char* name = nullptr;
  if (table_.error_name != nullptr) table_.error_name(result, &name);
  const ErrorCode code = result == vendor::kOutOfMemory ? ErrorCode::memory : ErrorCode::source;
  return {code, fmt::format("{}: {} ({})", what, name == nullptr ? "error" : name, result)};
}

}  // namespace inrush
