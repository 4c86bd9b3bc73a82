#include "inrush/shim/device.h"

#include <fmt/format.h>

#include <new>

namespace inrush {

// Enters the device's context, and leaves the thread as it was.
class Device::Scope {
 public:
  explicit Scope(const Device& device) : Scope(device, std::nothrow) {
    device.check(result_, "enter the context");
  }
  // For giving things back, which is tried in any case: a driver that is unwell may still do it.
  Scope(const Device& device, std::nothrow_t) noexcept
      : table_(device.table_), cuda_(device.primary_ != nullptr) {
    if (cuda_) {
      result_ = table_.primary_push(device.primary_);
      return;
    }
    result_ = table_.get_device(&before_);
    if (result_ == vendor::kSuccess && before_ != device.handle_) {
      result_ = table_.set_device(device.handle_);
      moved_ = result_ == vendor::kSuccess;
    }
  }
  ~Scope() {
    vendor::Primary left = nullptr;
    if (cuda_ && result_ == vendor::kSuccess) table_.primary_pop(&left);
    if (moved_) table_.set_device(before_);
  }
  [[nodiscard]] vendor::Result result() const { return result_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  const vendor::DeviceTable& table_;
  bool cuda_;
  bool moved_ = false;
  int before_ = -1;
  vendor::Result result_ = vendor::kSuccess;
};

Device::Device(std::shared_ptr<const DeviceDriver> driver, int index, const std::string& root)
    : driver_(std::move(driver)),
      table_(driver_->table()),
      index_(index),
      handle_(driver_->handle_of(index)),
      fact_(driver_->describe(index, root)),
      numa_(ask_numa_node(fact_.numa_node, root)),
      name_(driver_->name_of(index)) {
  if (table_.primary_retain == nullptr) return;
  check(table_.primary_retain(&primary_, handle_), "take the primary context");
}

Device::~Device() {
  if (primary_ != nullptr) table_.primary_release(handle_);
}

void Device::fail(vendor::Result result, const std::string& what) const {
  throw driver_->error(fmt::format("{} on {}", what, name_), result);
}

void Device::inside(const std::function<void()>& work) const {
  const Scope scope(*this);
  work();
}

void Device::keep_primary() const {
  if (table_.primary_retain == nullptr) return;
  vendor::Primary primary = nullptr;
  check(table_.primary_retain(&primary, handle_), "keep the primary context");
}

DeviceRoom Device::room() const {
  const Scope scope(*this);
  size_t free = 0;
  size_t total = 0;
  check(table_.mem_info(&free, &total), "ask for free memory");
  return {free, total};
}

vendor::Address Device::allocate(uint64_t size) const {
  const Scope scope(*this);
  vendor::Address address = 0;
  const vendor::Result result = table_.mem_alloc(&address, size);
  if (result == vendor::kSuccess) return address;
  size_t free = 0;
  size_t total = 0;
  const bool told = result == vendor::kOutOfMemory && table_.mem_info(&free, &total) == 0;
  fail(result, told ? fmt::format("allocate {} bytes ({} of {} are free)", size, free, total)
                    : fmt::format("allocate {} bytes", size));
}

// Memory may outlive the driver (the process ends) and the process (a fork): nothing is left to
// free then, so what the driver answers does not matter.
void Device::free(vendor::Address address) const noexcept {
  const Scope scope(*this, std::nothrow);
  table_.mem_free(address);
}

std::byte* Device::host_address(vendor::Address address) const {
  const Scope scope(*this);
  void* host = nullptr;
  if (table_.pointer_attribute(&host, vendor::kPointerHostAddress, address) != vendor::kSuccess) {
    return nullptr;
  }
  return static_cast<std::byte*>(host);
}

void Device::pin(void* memory, uint64_t size) const {
  const Scope scope(*this);
  const vendor::Result result = table_.host_register(memory, size, vendor::kHostRegisterPortable);
  if (result != vendor::kSuccess) fail(result, fmt::format("pin {} bytes for copies", size));
}

std::string Device::pin_read_only(void* memory, uint64_t size) const {
  const Scope scope(*this, std::nothrow);
  constexpr unsigned kFlags = vendor::kHostRegisterPortable | vendor::kHostRegisterReadOnly;
  const vendor::Result entered = scope.result();
  const vendor::Result result =
      entered != vendor::kSuccess ? entered : table_.host_register(memory, size, kFlags);
  if (result == vendor::kSuccess) return {};
  return driver_->error(fmt::format("register {} bytes of a file on {}", size, name_), result)
      .message();
}

void Device::unpin(void* memory) const noexcept {
  const Scope scope(*this, std::nothrow);
  table_.host_unregister(memory);
}

vendor::Stream Device::make_stream() const {
  const Scope scope(*this);
  vendor::Stream stream = nullptr;
  check(table_.stream_create(&stream, vendor::kStreamNonBlocking), "create a stream");
  return stream;
}

vendor::Event Device::make_event() const {
  const Scope scope(*this);
  vendor::Event event = nullptr;
  constexpr unsigned kFlags = vendor::kEventBlockingSync | vendor::kEventDisableTiming;
  check(table_.event_create(&event, kFlags), "create an event");
  return event;
}

void Device::destroy(vendor::Stream stream) const noexcept {
  const Scope scope(*this, std::nothrow);
  table_.stream_destroy(stream);
}

void Device::destroy(vendor::Event event) const noexcept {
  const Scope scope(*this, std::nothrow);
  table_.event_destroy(event);
}

void Device::copy_row(const DeviceCopy& copy, uint64_t row, vendor::Stream stream) const {
  const vendor::Address target = copy.target + row * copy.target_pitch;
  const std::byte* const source = copy.source + row * copy.source_pitch;
  check(copy.from_device ? table_.copy_on_device(target, reinterpret_cast<vendor::Address>(source),
                                                 copy.row_size, stream)
                         : table_.copy_to_device(target, source, copy.row_size, stream),
        "copy");
}

vendor::Result Device::copy_rows(const DeviceCopy& copy, vendor::Stream stream) const {
  if (table_.hip_copy_2d != nullptr) {
    return table_.hip_copy_2d(reinterpret_cast<void*>(copy.target), copy.target_pitch, copy.source,
                              copy.source_pitch, copy.row_size, copy.rows,
                              vendor::kCopyHostToDevice, stream);
  }
  vendor::Copy2d rows;
  rows.source_type = copy.from_device ? vendor::kMemoryDevice : vendor::kMemoryHost;
  rows.source_host = copy.from_device ? nullptr : copy.source;
  rows.source_device = copy.from_device ? reinterpret_cast<vendor::Address>(copy.source) : 0;
  rows.source_pitch = copy.source_pitch;
  rows.target_type = vendor::kMemoryDevice;
  rows.target_device = copy.target;
  rows.target_pitch = copy.target_pitch;
  rows.width = copy.row_size;
  rows.height = copy.rows;
  return table_.copy_2d(&rows, stream);
}

void Device::copy(const DeviceCopy& copy, vendor::Stream stream) const {
  const Scope scope(*this);
  // What a 2-D copy cannot say: rows that overlap or are one, and pitches beyond the device's.
  const bool pitched = copy.rows > 1 && copy.source_pitch >= copy.row_size &&
                       copy.target_pitch >= copy.row_size && copy.source_pitch <= fact_.max_pitch &&
                       copy.target_pitch <= fact_.max_pitch;
  if (pitched) {
    const vendor::Result result = copy_rows(copy, stream);
    if (result == vendor::kSuccess) return;
    // Between two places on the device cuda.h promises it for no pitch but cuMemAllocPitch's.
    if (!copy.from_device || result != vendor::kInvalidValue) fail(result, "copy rows");
  }
  for (uint64_t row = 0; row < copy.rows; ++row) copy_row(copy, row, stream);
}

void Device::fill_zeros(vendor::Address target, uint64_t size, vendor::Stream stream) const {
  const Scope scope(*this);
  check(table_.fill(target, 0, size, stream), "fill with zeros");
}

void Device::record(vendor::Event event, vendor::Stream stream) const {
  const Scope scope(*this);
  check(table_.event_record(event, stream), "record an event");
}

void Device::wait_on_stream(vendor::Stream stream, vendor::Event event) const {
  const Scope scope(*this);
  check(table_.stream_wait_event(stream, event, 0), "make a stream wait");
}

bool Device::is_done(vendor::Event event) const {
  const Scope scope(*this);
  const vendor::Result result = table_.event_query(event);
  if (result != vendor::kNotReady) check(result, "copy");
  return result == vendor::kSuccess;
}

void Device::wait(vendor::Event event) const {
  const Scope scope(*this);
  check(table_.event_synchronize(event), "copy");
}

void Device::wait(vendor::Stream stream) const {
  const Scope scope(*this);
  check(table_.stream_synchronize(stream), "copy");
}

}  // namespace inrush
