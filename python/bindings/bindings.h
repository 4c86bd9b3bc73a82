// What the files of the extension module share. Each bind_* adds one public header to the module.
#pragma once

#include <nanobind/nanobind.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "inrush/checkpoint.h"
#include "inrush/core/tensor.h"
#include "inrush/load.h"

namespace inrush::python {

namespace nb = nanobind;

// Gives the interpreter's lock away, or takes it, while it lives. Where the interpreter has ended
// meanwhile, the thread (a daemon's) stays here until the process ends: CPython before 3.14 ends it
// by unwinding, and the first C++ frame that is noexcept would abort the process.
class GilReleased {
 public:
  GilReleased();
  ~GilReleased();
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

class GilTaken {
 public:
  GilTaken();
  ~GilTaken() { PyGILState_Release(state_); }
  GilTaken(const GilTaken&) = delete;
  GilTaken& operator=(const GilTaken&) = delete;

 private:
  PyGILState_STATE state_;
};

// A TensorInfo where it stands in its index, which it keeps alive.
struct InfoView {
  Checkpoint checkpoint;
  const TensorInfo* info;
};

// Whether a signal's handler raised: Ctrl-C. Handlers run in the main thread only.
std::function<bool()> heeding_signals();

// What a handler raised is the error, and not that the work was stopped for it.
template <typename Work>
auto heedful(Work work) {
  try {
    const GilReleased released;
    return work();
  } catch (const Error&) {
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    throw;
  }
}

Deadline deadline_after(std::optional<double> seconds);

// Whether `wait` says so before the timeout (in seconds): without the GIL, in slices between which
// Ctrl-C is looked for.
bool wait_watchfully(std::optional<double> timeout, const std::function<bool(Deadline)>& wait);

void bind_error(nb::module_& module);
void bind_tensor(nb::module_& module);
void bind_checkpoint(nb::module_& module);
void bind_select(nb::module_& module);
void bind_load(nb::module_& module);
void bind_save(nb::module_& module);
void bind_view(nb::module_& module);
void bind_policy(nb::module_& module);
void bind_manifest(nb::module_& module);
void bind_checks(nb::module_& module);
void bind_ledger(nb::module_& module);
void bind_device(nb::module_& module);
void bind_file(nb::module_& module);
void bind_exit(nb::module_& module);

// LoadOptions::deliver_to, for Python: see its docstring.
void bind_delivery(nb::class_<LoadOptions>& options);

// The DLPack capsule of a tensor; the capsule keeps the tensor's memory alive.
nb::object dlpack_capsule(const Tensor& tensor, bool versioned);

// A dtype by its safetensors name. Throws Error{usage}.
Dtype dtype_of(const std::string& name);

// Keeps a Python object alive for C++. The last copy may be dropped on any thread: a lane that
// drops it leaves the object to the interpreter and never waits for the GIL.
std::shared_ptr<void> keep(nb::object object);

using Extents = nb::typed<nb::tuple, nb::int_, nb::ellipsis>;

Extents extents_of(const std::vector<uint64_t>& shape);

// A name of a file, whatever bytes it is of, as Python shows file names.
nb::str text_of(const std::string& name);

// A name as Python's repr() shows it: on one line, without control characters.
std::string repr_of(const std::string& name);

}  // namespace inrush::python
