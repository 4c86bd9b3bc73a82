// device.h: where tensors go, and Python's memory for them.
#include "inrush/device.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <memory>
#include <tuple>

#include "inrush/core/error.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

using Answer = std::tuple<uintptr_t, int, nb::object>;  // address, device, owner

// A Python function that C++ calls, with the GIL or without.
class Callback {
 public:
  explicit Callback(nb::object function) : function_(keep(std::move(function))) {}
  [[nodiscard]] nb::handle function() const { return static_cast<PyObject*>(function_.get()); }

 private:
  std::shared_ptr<void> function_;
};

nb::list listed(std::span<const MemoryRequest> requests) {
  nb::list list;
  for (const MemoryRequest& request : requests) {
    list.append(nb::make_tuple(text_of(std::string(request.name)), name_of(request.dtype),
                               extents_of({request.shape.begin(), request.shape.end()}),
                               request.size, request.file_offset));
  }
  return list;
}

std::vector<Memory> answers_of(const nb::object& result, std::span<const MemoryRequest> requests,
                               DeviceVendor vendor) {
  const auto answers = nb::cast<std::vector<Answer>>(result);
  std::vector<Memory> memories;
  // Tensors that share an owner share an allocation, so that one copy may fill several.
  std::map<PyObject*, std::shared_ptr<void>> owners;
  for (size_t i = 0; i < answers.size() && i < requests.size(); ++i) {
    const auto& [address, device, owner] = answers[i];
    std::shared_ptr<void>& kept = owners[owner.ptr()];
    if (!kept) kept = keep(owner);
    Memory memory;
    memory.data = reinterpret_cast<std::byte*>(address);  // NOLINT: the caller's memory
    memory.size = requests[i].size;
    memory.kind = device < 0 ? MemoryKind::host : MemoryKind::device;
    memory.device = device;
    memory.vendor = vendor;
    memory.owner = kept;
    memories.push_back(std::move(memory));
  }
  return memories;
}

// Called without the GIL, on the thread that asks for tensors.
Allocator allocator_of(nb::object function, DeviceVendor vendor) {
  return
      [callback = Callback(std::move(function)), vendor](std::span<const MemoryRequest> requests) {
        const GilTaken taken;
        const nb::object result = callback.function()(listed(requests));
        return answers_of(result, requests, vendor);
      };
}

void deliver(LoadOptions& options, const std::vector<std::string>& devices,
             std::map<std::string, uint32_t> places, const nb::object& allocate,
             const nb::object& stream) {
  DeviceOptions wanted;
  wanted.devices = devices;
  if (!places.empty()) {
    wanted.place = [places = std::move(places)](std::string_view tensor) {
      return static_cast<size_t>(places.at(std::string(tensor)));
    };
  }
  if (!stream.is_none()) {
    wanted.consumer_stream = [callback = Callback(stream)](int device) {
      const GilTaken taken;
      const auto handle = nb::cast<uintptr_t>(callback.function()(device));
      return reinterpret_cast<void*>(handle);  // NOLINT: the driver's handle
    };
  }
  if (!allocate.is_none()) {
    const bool hip = !devices.empty() && devices.front().starts_with("hip");
    options.allocator = allocator_of(allocate, hip ? DeviceVendor::hip : DeviceVendor::cuda);
  }
  const GilReleased released;
  deliver_to(options, wanted);
}

}  // namespace

void bind_delivery(nb::class_<LoadOptions>& options) {
  options.def("deliver_to", &deliver, nb::arg("devices"),
              nb::arg("places") = std::map<std::string, uint32_t>(),
              nb::arg("allocate").none() = nb::none(), nb::arg("stream").none() = nb::none(),
              "Let tensors land on devices: 'cuda:0', 'hip:1', or 'cpu'.\n\n"
              "`places` says which of them by tensor name; without it it is the first.\n"
              "`allocate` takes a list of (name, dtype, shape, nbytes, file offset) and returns\n"
              "one (address, device or -1, owner) for each, on the thread that asks for tensors;\n"
              "without it the driver gives the memory. `stream` returns the handle of the stream\n"
              "that this thread works on, by device.");
}

void bind_device(nb::module_& module) {
  nb::class_<DeviceDescription>(module, "DeviceDescription", "One GPU.")
      .def_ro("name", &DeviceDescription::name)
      .def_ro("bus", &DeviceDescription::bus)
      .def_ro("numa_node", &DeviceDescription::numa_node)
      .def_ro("integrated", &DeviceDescription::integrated)
      .def_ro("numa", &DeviceDescription::numa,
              "What of that node a load may use, in words; '' where it is not known.");
  nb::class_<DriverDescription>(module, "DriverDescription", "What is here of a vendor's.")
      .def_ro("vendor", &DriverDescription::vendor)
      .def_ro("library", &DriverDescription::library)
      .def_ro("version", &DriverDescription::version)
      .def_ro("reason", &DriverDescription::reason, "Why it cannot be used; '' where it can.")
      .def_ro("devices", &DriverDescription::devices);
  module.def("drivers", &describe_drivers, "The drivers of GPUs; no context is made.");
}

}  // namespace inrush::python
