// core/tensor.h: a tensor's bytes as other libraries want them, through DLPack or the buffer
// protocol; never a copy unless asked for one.
#include "inrush/core/tensor.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <new>
#include <numeric>

#include "inrush/core/error.h"
#include "python/bindings/bindings.h"
#include "python/bindings/dlpack.h"

namespace inrush::python {
namespace {

struct ExportRow {
  uint8_t dlpack_code;  // DLPack 1.1
  const char* format;   // of the buffer protocol; unnameable types show as unsigned integers
};

// In the order of Dtype.
constexpr std::array<ExportRow, kDtypeCount> kExports{{
    {6, "?"},  {17, "B"}, {15, "B"}, {16, "B"}, {1, "B"}, {0, "b"}, {12, "B"}, {10, "B"},
    {14, "B"}, {11, "B"}, {13, "B"}, {0, "h"},  {1, "H"}, {2, "e"}, {4, "H"},  {0, "i"},
    {1, "I"},  {2, "f"},  {5, "Zf"}, {2, "d"},  {0, "q"}, {1, "Q"},
}};

constexpr DlVersion kDlpackVersion{1, 1};
constexpr uint64_t kDlpackIsCopied = 2;
constexpr int32_t kDlpackHost = 1;
constexpr int32_t kDlpackCuda = 2;
constexpr int32_t kDlpackRocm = 10;

const ExportRow& export_of(Dtype dtype) { return kExports[static_cast<size_t>(dtype)]; }

bool on_device(const Tensor& tensor) { return tensor.memory.kind == MemoryKind::device; }

DlDevice dlpack_device(const Tensor& tensor) {
  if (!on_device(tensor)) return {kDlpackHost, 0};
  const bool rocm = tensor.memory.vendor == DeviceVendor::hip;
  return {rocm ? kDlpackRocm : kDlpackCuda, tensor.memory.device};
}

// "cpu", "cuda:0"
std::string device_name(const Tensor& tensor) {
  if (!on_device(tensor)) return "cpu";
  const bool rocm = tensor.memory.vendor == DeviceVendor::hip;
  return (rocm ? "hip:" : "cuda:") + std::to_string(tensor.memory.device);
}

void refuse_device(const Tensor& tensor, const char* what) {
  if (!on_device(tensor)) return;
  const std::string message = std::string(what) + " " + tensor.name + ": it is in the memory of " +
                              device_name(tensor) + ", which the host cannot read";
  throw nb::buffer_error(message.c_str());
}

// Elements of less than a byte have no address: their last dimension is shown in bytes.
std::vector<uint64_t> byte_shape(const Tensor& tensor) {
  std::vector<uint64_t> shape = tensor.shape;
  const uint64_t bits = bits_of(tensor.dtype);
  if (shape.empty()) {
    if (bits != 8) shape.push_back(tensor.memory.size);
  } else if (shape.back() * bits % 8 == 0) {
    shape.back() = shape.back() * bits / 8;
  } else {
    shape.assign(1, tensor.memory.size);
  }
  return shape;
}

// The same memory as unsigned bytes.
Tensor as_bytes(const Tensor& tensor) {
  Tensor bytes = tensor;
  bytes.shape = byte_shape(tensor);
  bytes.dtype = Dtype::u8;
  return bytes;
}

// The same memory under another shape of as many elements.
Tensor reshaped(const Tensor& tensor, std::vector<uint64_t> shape) {
  const auto count = [](const std::vector<uint64_t>& extents) {
    return std::accumulate(extents.begin(), extents.end(), uint64_t{1}, std::multiplies<>());
  };
  if (count(shape) != count(tensor.shape)) {
    throw Error(ErrorCode::usage, "reshape " + tensor.name + ": the number of elements differs");
  }
  Tensor out = tensor;
  out.shape = std::move(shape);
  return out;
}

// The address of a C-contiguous buffer, which the caller keeps.
uintptr_t buffer_address(nb::handle object) {
  Py_buffer view;
  if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_C_CONTIGUOUS) != 0) throw nb::python_error();
  const auto address = reinterpret_cast<uintptr_t>(view.buf);
  PyBuffer_Release(&view);
  return address;
}

Tensor copy_of(const Tensor& tensor) {
  refuse_device(tensor, "copy");
  Tensor copy = tensor;
  constexpr std::align_val_t kAlignment{64};
  auto* data = static_cast<std::byte*>(::operator new(tensor.memory.size, kAlignment));
  copy.memory.owner = {data, [](void* memory) { ::operator delete(memory, kAlignment); }};
  copy.memory.data = data;
  copy.mapped = false;
  const GilReleased released;
  if (tensor.memory.size != 0) std::memcpy(data, tensor.memory.data, tensor.memory.size);
  return copy;
}

// A DLPack struct with what it points to, in one allocation.
template <typename Managed>
struct Exported {
  Managed managed;
  std::shared_ptr<void> owner;
  int64_t extents[];  // shape, then strides
};

void fill(DlTensor& out, const Tensor& tensor, int64_t* extents) {
  const size_t dimensions = tensor.shape.size();
  int64_t stride = 1;
  for (size_t i = dimensions; i-- > 0;) {
    extents[i] = static_cast<int64_t>(tensor.shape[i]);
    extents[dimensions + i] = stride;
    stride *= std::max<int64_t>(1, extents[i]);  // as frameworks count that of empty tensors
  }
  out.data = tensor.memory.data;
  out.device = dlpack_device(tensor);
  out.dimensions = static_cast<int32_t>(dimensions);
  out.dtype = {export_of(tensor.dtype).dlpack_code, static_cast<uint8_t>(bits_of(tensor.dtype)), 1};
  out.shape = extents;
  out.strides = extents + dimensions;
  out.byte_offset = 0;
}

template <typename Managed>
Managed* export_tensor(const Tensor& tensor) {
  using Record = Exported<Managed>;
  void* raw = ::operator new(sizeof(Record) + 2 * tensor.shape.size() * sizeof(int64_t));
  auto* record = new (raw) Record{{}, tensor.memory.owner};
  fill(record->managed.tensor, tensor, record->extents);
  record->managed.opaque = record;
  record->managed.deleter = [](Managed* managed) {
    auto* self = static_cast<Record*>(managed->opaque);
    self->~Record();
    ::operator delete(self);
  };
  return &record->managed;
}

template <typename Managed>
nb::object capsule_of(Managed* managed, const char* name) {
  // A consumer renames the capsule when it takes the struct; until then it is ours to free.
  auto release = [](PyObject* capsule) {
    for (const char* unused : {"dltensor", "dltensor_versioned"}) {
      if (PyCapsule_IsValid(capsule, unused) == 0) continue;
      auto* taken = static_cast<Managed*>(PyCapsule_GetPointer(capsule, unused));
      taken->deleter(taken);
    }
  };
  PyObject* capsule = PyCapsule_New(managed, name, release);
  if (capsule == nullptr) {
    managed->deleter(managed);
    throw nb::python_error();
  }
  return nb::steal(capsule);
}

nb::object dlpack(const Tensor& tensor, nb::handle stream,
                  std::optional<std::pair<uint32_t, uint32_t>> max_version,
                  std::optional<std::pair<int32_t, int32_t>> device, std::optional<bool> copy) {
  // What a load delivers is complete, so it is ready on whichever stream the consumer names.
  if (!stream.is_none() && !on_device(tensor)) {
    throw nb::buffer_error("stream must be None for host memory");
  }
  const DlDevice here = dlpack_device(tensor);
  if (device && *device != std::pair<int32_t, int32_t>{here.type, here.id}) {
    const std::string place = on_device(tensor) ? device_name(tensor) : "host memory";
    throw nb::buffer_error(("the tensor is in " + place + ": device (" + std::to_string(here.type) +
                            ", " + std::to_string(here.id) + ")")
                               .c_str());
  }
  if (bits_of(tensor.dtype) < 8) {
    throw nb::buffer_error("elements of less than a byte are exported through as_bytes()");
  }
  const bool versioned = max_version && max_version->first >= 1;
  if (!copy.value_or(false)) return dlpack_capsule(tensor, versioned);
  const Tensor fresh = copy_of(tensor);
  if (!versioned) return dlpack_capsule(fresh, false);
  auto* managed = export_tensor<DlManagedVersioned>(fresh);
  managed->version = kDlpackVersion;
  managed->flags = kDlpackIsCopied;
  return capsule_of(managed, "dltensor_versioned");
}

// What a Py_buffer points to while it is held.
struct BufferExtents {
  std::shared_ptr<void> owner;
  std::vector<Py_ssize_t> shape;
  std::vector<Py_ssize_t> strides;
};

int get_buffer(PyObject* self, Py_buffer* view, int flags) noexcept {
  try {
    const auto* tensor = nb::inst_ptr<Tensor>(nb::handle(self));
    if (on_device(*tensor)) {
      view->obj = nullptr;
      PyErr_SetString(PyExc_BufferError,
                      ("the tensor is in the memory of " + device_name(*tensor)).c_str());
      return -1;
    }
    const bool fortran = (flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS;
    if (fortran && tensor->shape.size() > 1) {
      view->obj = nullptr;
      PyErr_SetString(PyExc_BufferError, "tensors are in C order");
      return -1;
    }
    const uint32_t bits = bits_of(tensor->dtype);
    const std::vector<uint64_t> shape = bits < 8 ? byte_shape(*tensor) : tensor->shape;
    auto extents = std::make_unique<BufferExtents>();
    extents->owner = tensor->memory.owner;
    extents->shape.assign(shape.begin(), shape.end());
    extents->strides.resize(shape.size());
    view->itemsize = std::max<uint32_t>(1, bits / 8);
    Py_ssize_t stride = view->itemsize;
    for (size_t i = shape.size(); i-- > 0;) {
      extents->strides[i] = stride;
      stride *= std::max<Py_ssize_t>(1, extents->shape[i]);
    }
    view->buf = tensor->memory.data;
    view->len = static_cast<Py_ssize_t>(tensor->memory.size);
    view->readonly = 0;
    view->ndim = static_cast<int>(shape.size());
    view->format = (flags & PyBUF_FORMAT) != 0
                       ? const_cast<char*>(export_of(tensor->dtype).format)  // NOLINT: C API
                       : nullptr;
    view->shape = (flags & PyBUF_ND) != 0 ? extents->shape.data() : nullptr;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? extents->strides.data() : nullptr;
    view->suboffsets = nullptr;
    view->internal = extents.release();
    view->obj = Py_NewRef(self);
    return 0;
  } catch (const std::bad_alloc&) {
    view->obj = nullptr;
    PyErr_NoMemory();
    return -1;
  }
}

void release_buffer(PyObject*, Py_buffer* view) noexcept {
  delete static_cast<BufferExtents*>(view->internal);
}

std::string repr(const Tensor& tensor) {
  std::string shape;
  for (const uint64_t extent : tensor.shape) {
    if (!shape.empty()) shape += ", ";
    shape += std::to_string(extent);
  }
  return "<inrush.Tensor " + repr_of(tensor.name) + " " + std::string(name_of(tensor.dtype)) +
         " [" + shape + "]>";
}

}  // namespace

nb::object dlpack_capsule(const Tensor& tensor, bool versioned) {
  if (!versioned) return capsule_of(export_tensor<DlManaged>(tensor), "dltensor");
  auto* managed = export_tensor<DlManagedVersioned>(tensor);
  managed->version = kDlpackVersion;
  managed->flags = 0;
  return capsule_of(managed, "dltensor_versioned");
}

Extents extents_of(const std::vector<uint64_t>& shape) {
  nb::list extents;
  for (const uint64_t extent : shape) extents.append(extent);
  return nb::borrow<Extents>(nb::tuple(extents));
}

Dtype dtype_of(const std::string& name) {
  const std::optional<Dtype> dtype = dtype_named(name);
  if (!dtype) throw Error(ErrorCode::usage, "there is no dtype named " + name);
  return *dtype;
}

void bind_tensor(nb::module_& module) {
  static PyType_Slot slots[] = {
      {Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)},
      {Py_bf_releasebuffer, reinterpret_cast<void*>(release_buffer)},
      {0, nullptr},
  };
  nb::class_<Tensor>(
      module, "Tensor", nb::type_slots(slots),
      "A tensor, readable through DLPack and, in host memory, the buffer protocol.\n\n"
      "It keeps its own bytes alive and nothing else. Dtypes that the buffer\n"
      "protocol cannot name (BF16, F8_*, F4, F6_*) show there as unsigned integers.")
      .def_ro("name", &Tensor::name, "Name in the checkpoint.")
      .def_prop_ro(
          "dtype", [](const Tensor& tensor) { return name_of(tensor.dtype); },
          "Element type as safetensors names it, such as 'BF16'.")
      .def_prop_ro(
          "shape", [](const Tensor& tensor) { return extents_of(tensor.shape); },
          "Extents in elements, of the slice where one was asked for.")
      .def_prop_ro(
          "nbytes", [](const Tensor& tensor) { return tensor.memory.size; }, "Size in bytes.")
      .def_prop_ro(
          "data_ptr",
          [](const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.memory.data); },
          "Address of the first byte.")
      .def_prop_ro("device", &device_name, "Where it lies: 'cpu', 'cuda:0', 'hip:1'.")
      .def_ro("mapped", &Tensor::mapped, "Whether the bytes are the file's own pages.")
      .def("as_bytes", &as_bytes, "The same memory as a U8 tensor; the last dimension is in bytes.")
      .def("reshape", &reshaped, nb::arg("shape"),
           "The same memory under another shape of as many elements.")
      .def("copy", &copy_of, "A copy in memory of its own.")
      .def("__dlpack__", &dlpack, nb::kw_only(), nb::arg("stream").none() = nb::none(),
           nb::arg("max_version").none() = nb::none(), nb::arg("dl_device").none() = nb::none(),
           nb::arg("copy").none() = nb::none(),
           "A DLPack capsule over the tensor's memory.\n\n"
           "Raises\n------\nBufferError\n    For elements of less than a byte, and for other "
           "devices.")
      .def(
          "__dlpack_device__",
          [](const Tensor& tensor) {
            const DlDevice device = dlpack_device(tensor);
            return std::pair<int32_t, int32_t>{device.type, device.id};
          },
          "The DLPack device: (1, 0) is host memory, (2, n) CUDA's, (10, n) ROCm's.")
      .def("__repr__", &repr);
  module.def("buffer_address", &buffer_address, nb::arg("buffer"),
             "Address of a C-contiguous buffer; the caller keeps it.");
}

}  // namespace inrush::python
