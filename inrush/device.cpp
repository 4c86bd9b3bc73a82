#include "inrush/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <map>
#include <memory>
#include <utility>

#include "inrush/core/error.h"
#include "inrush/shim/cufile.h"
#include "inrush/shim/device.h"
#include "inrush/sinks/device.h"
#include "inrush/sinks/device_memory.h"

namespace inrush {
namespace {

DriverDescription describe(DeviceVendor vendor) {
  DriverDescription found;
  found.vendor = name_of(vendor);
  try {
    const auto driver = DeviceDriver::load(vendor);
    found.library = driver->library();
    found.version = driver->version_text();
    for (int i = 0; i < driver->device_count(); ++i) {
      const DeviceFact fact = driver->describe(i);
      found.devices.push_back({fact.name, fact.bus, fact.numa_node, fact.integrated,
                               to_text(ask_numa_node(fact.numa_node))});
    }
  } catch (const Error& error) {
    found.reason = error.message();
  }
  return found;
}

DriverDescription describe_cufile() {
  DriverDescription found;
  found.vendor = "cufile";
  try {
    CuFileLibrary library = find_cufile();
    found.library = std::move(library.path);
    found.version = std::move(library.version);
  } catch (const Error& error) {
    found.reason = error.message();
  }
  return found;
}

TargetFact target_of(const Device& device) {
  TargetFact target{device.name(), fmt::format("{} {}", device.fact().name, device.fact().bus), ""};
  if (device.fact().integrated || device.fact().coherent) {
    target.register_refusal = "the device's memory is the host's";
  } else if (!device.fact().read_only) {
    target.register_refusal = "the driver registers no memory that may only be read";
  }
  return target;
}

std::shared_ptr<const DeviceDriver> load_driver(const DeviceName& device) {
  try {
    return DeviceDriver::load(device.vendor == "hip" ? DeviceVendor::hip : DeviceVendor::cuda);
  } catch (const Error& error) {
    throw Error(ErrorCode::usage, fmt::format("device {}:{}: there is no driver to use: {}",
                                              device.vendor, device.index, error.message()));
  }
}

}  // namespace

std::vector<DriverDescription> describe_drivers() {
  return {describe(DeviceVendor::cuda), describe(DeviceVendor::hip), describe_cufile()};
}

DeviceName parse_device(std::string_view name) {
  if (name == "cpu") return {"cpu", -1};
  const size_t colon = name.find(':');
  DeviceName device{std::string(name.substr(0, colon)), 0};
  const char* const end = name.data() + name.size();
  bool sound = device.vendor == "cuda" || device.vendor == "hip";
  if (colon != std::string_view::npos) {
    const char* const digits = name.data() + colon + 1;
    const auto [rest, error] = std::from_chars(digits, end, device.index);
    sound = sound && error == std::errc() && rest == end && digits != end && device.index >= 0;
  }
  if (sound) return device;
  throw Error(ErrorCode::usage,
              fmt::format("device {} is invalid: expected cpu, cuda:N or hip:N", name));
}

void deliver_to(LoadOptions& options, const DeviceOptions& devices) {
  std::shared_ptr<const DeviceDriver> driver;
  std::string vendor;
  std::vector<int> indices;  // per name: into `opened`, -1 for the host
  std::map<int, int> known;  // device -> its place in `opened`
  std::vector<std::shared_ptr<const Device>> opened;
  for (const std::string& text : devices.devices) {
    const DeviceName name = parse_device(text);
    if (name.index < 0) {
      indices.push_back(-1);
      continue;
    }
    if (!driver) {
      driver = load_driver(name);
      vendor = name.vendor;
    }
    if (name.vendor != vendor) {
      throw Error(ErrorCode::usage, fmt::format("a load goes to devices of one vendor, not to {} "
                                                "and {}",
                                                vendor, name.vendor));
    }
    const auto [place, fresh] = known.emplace(name.index, static_cast<int>(opened.size()));
    if (fresh) opened.push_back(std::make_shared<const Device>(driver, name.index, devices.root));
    indices.push_back(place->second);
  }
  if (opened.empty()) return;
  DevicePlace place = [indices, wanted = devices.place](std::string_view tensor) {
    return indices.at(wanted ? wanted(tensor) : 0);
  };
  if (!options.allocator) options.allocator = device_allocator(opened, std::move(place));
  const auto answers = std::make_shared<std::atomic<uint64_t>>(0);
  options.allocator = [give = std::move(options.allocator),
                       answers](std::span<const MemoryRequest> requests) {
    std::vector<Memory> memories = give(requests);
    ++*answers;
    return memories;
  };
  options.pool = 0;
  // One device's own memory, and nothing of the host's: storage can write there by itself.
  const bool all_there = std::all_of(indices.begin(), indices.end(), [](int i) { return i == 0; });
  const DeviceFact& fact = opened.front()->fact();
  // Lanes read for all devices: they have a node where all of those have the same.
  options.numa = opened.front()->numa();
  for (const auto& device : opened) {
    if (device->numa().number != options.numa.number) options.numa = {};
  }
  options.target = {};
  if (opened.size() == 1 && all_there) options.target = target_of(*opened.front());
  options.direct_device.clear();
  if (opened.size() == 1 && all_there && !fact.integrated && !fact.coherent) {
    options.direct_device = opened.front()->name();
  }
  DeviceSinkOptions sink;
  sink.devices = std::move(opened);
  sink.answers = answers;
  if (devices.consumer_stream) {
    sink.consumer_stream = [ask = devices.consumer_stream](int device) {
      return static_cast<vendor::Stream>(ask(device));
    };
  }
  options.sink = device_sink(std::move(sink));
}

}  // namespace inrush
